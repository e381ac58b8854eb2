"""Weights that a run's networks begin with: of the network that another method's run was evaluated by."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from udabench.data.whole import whole_images
from udabench.engine.checkpoint import state_of
from udabench.engine.files import read_json, replacing_folder
from udabench.engine.folder import RunFolder
from udabench.method import Method
from udabench.network import Network
from udabench.run.ancestor import Ancestor
from udabench.run.plan import Plan
from udabench.run.scoring import chosen_predictors
from udabench.run.setup import Initial
from udabench.run.trained import load_trained

WEIGHTS, ABOUT = "network.safetensors", "initial.json"


class _Found(Exception):
    """Carries the network that a prediction has called; the prediction ends there."""

    def __init__(self, network: Network) -> None:
        self.network = network


def headline_network(method: Method, plan: Plan) -> Network:
    """The network that the paper's choice of predictor asks, of several (an ensemble) the first; without one, that
    of record."""

    def stop(module: torch.nn.Module, _: object) -> None:
        if isinstance(module, Network):
            raise _Found(module)

    hooks = [module.register_forward_pre_hook(stop) for module in method.modules()]
    predictor = next(iter(chosen_predictors(method, plan.config).values()))
    try:
        with torch.no_grad():
            predictor(whole_images(torch.rand(1, 3, *plan.config.data.crop)))
    except _Found as found:
        return found.network
    finally:
        for hook in hooks:
            hook.remove()
    return method.network_of_record()


def headline_weights(ancestor: Ancestor, plan: Plan) -> Initial:
    """Of a run's headline network. Raises CheckpointError when its checkpoint is damaged."""
    trained = load_trained(ancestor.folder.path, "cpu", plan.plugin_files)
    network = headline_network(trained.method, plan)
    predictor = next(iter(chosen_predictors(trained.method, plan.config)))
    name = next(name for name, module in trained.method.named_modules() if module is network)
    return Initial(state_of(network), f"{name} ({predictor}) of {ancestor.folder.path.resolve().name}", ancestor.digest)


def write_initial(initial: Initial, folder: Path) -> None:
    """Raises DiskFull."""
    with replacing_folder(folder) as temporary:
        save_file({key: value.contiguous().clone() for key, value in initial.state.items()}, temporary / WEIGHTS)
        about = {"source": initial.source, "digest": initial.digest}
        (temporary / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def read_initial(folder: RunFolder) -> Initial | None:
    """What a run's networks began with; None where it was the configured weights. Raises UserError."""
    if not folder.initial.is_dir():
        return None
    about = read_json(folder.initial / ABOUT)
    return Initial(load_file(folder.initial / WEIGHTS), about["source"], about["digest"])
