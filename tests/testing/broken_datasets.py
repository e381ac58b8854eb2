"""Data sets that are each broken in one way."""

import random
from typing import ClassVar

import numpy as np

from udabench import Dataset, Entry, LabelSpace, Size, hookimpl

SPACE = LabelSpace("two", ("road", "sky"), ((0, 0, 0), (255, 255, 255)))


class Sound(Dataset):
    label_space = SPACE
    id_map: ClassVar = {0: 0, 1: 1, 9: 255}
    train_size = Size(8, 16)
    needs_root = False

    def list_names(self):
        return ["a", "b", "c", "d"]

    def read_image(self, name):
        return np.full((8, 16, 3), ord(name), np.uint8)

    def read_ids(self, name):
        return np.full((8, 16), ord(name) % 2, np.uint8)


class WrongMap(Sound):
    id_map: ClassVar = {0: 0, 1: 2}


class NoLayout(Sound):
    needs_root = True


class NamesTwice(Sound):
    def list_names(self):
        return ["a", "b", "a"]


class LeavesTheFolder(Sound):
    def list_names(self):
        return ["../a"]


class AnyOrder(Sound):
    def list_names(self):
        return random.sample(["a", "b", "c", "d", "e", "f"], 6)


class GreyImages(Sound):
    def read_image(self, name):
        return np.zeros((8, 16), np.uint8)


class OtherSize(Sound):
    def read_ids(self, name):
        return np.zeros((8, 15), np.uint8)


class UnknownId(Sound):
    def read_ids(self, name):
        return np.full((8, 16), 7, np.uint8)


class Hashed(Sound):
    def read_image(self, name):
        return np.full((8, 16, 3), hash(name) % 256, np.uint8)


class NotPicklable(Sound):
    def __init__(self, root, split):
        super().__init__(root, split)
        self._reader = lambda name: name


KINDS = (
    Sound, WrongMap, NoLayout, NamesTwice, LeavesTheFolder, AnyOrder, GreyImages, OtherSize, UnknownId, Hashed,
    NotPicklable,
)  # fmt: skip


@hookimpl
def register_datasets():
    return {kind.__name__: Entry(kind) for kind in KINDS}
