"""The loop, the optimisers' clock, checkpoints and resume, artefacts, the log."""
