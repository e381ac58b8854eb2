"""Pictures for the log."""

import torch

from udabench.parts.panels import prediction_panel


def test_a_prediction_is_the_argmax_of_the_upsampled_logits_as_they_were():
    """The first of two classes falls from 2 to -0.5 against 0: at 3/4 of the way it is still 0.125."""
    logits = torch.tensor([[2.0, -0.5], [0.0, 0.0]], requires_grad=True).view(1, 2, 1, 2)
    panel = prediction_panel(logits, (1, 4), "student")
    assert panel.name == "student"
    # The centres of four lie at 0, 1/4, 3/4 and 1 of the way between those of two.
    assert panel.picture().tolist() == [[[0, 0, 0, 1]]]
    assert not panel.picture().requires_grad
