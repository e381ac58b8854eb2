"""Augmentation of batches on the device. Every random draw comes from an explicit CPU generator."""
