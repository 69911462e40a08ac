"""The loss of whole validation volumes, so that it can be compared with that of training."""

from statistics import fmean

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from scripts.data.imperfect_labels import split_raters
from scripts.distributed import gather_items


class ValidationLoss:
    """Measures the loss of each validation case on the logits of the sliding window, before postprocessing.

    It costs one evaluation of the loss per case, no pass of the network. A loss holds some five copies of the logits in
    float32: 0.5 GB for three regions of a cropped BraTS case, less than a training step needs. Logits that a GPU cannot
    hold are on the host (`MirroringSlidingWindowInferer`), and their loss is computed there.

    Args:
        loss: of one head, maps logits and label [1, K, ...] to a scalar. In evaluation mode it must not wait for other
            processes, which may have fewer cases. Of the labels of several raters, [1, R * K, ...], it is the mean.

    Attach it to the validation evaluator; the metric `val_loss` is the mean over the cases of all processes.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss
        self.values: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Reset at the start of each pass, measure each case, and set the metric at the end."""
        engine.add_event_handler(Events.STARTED, lambda: self.values.clear())
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._measure)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._average)

    @torch.no_grad()
    def _measure(self, engine: Engine) -> None:
        logits = engine.state.output["pred"].float().contiguous()
        label = engine.state.output["label"].to(logits)
        self.loss.to(logits.device).eval()  # they are on the host where a GPU cannot hold them
        by_rater = split_raters(label, logits.shape[1], axis=1)
        self.values.append(fmean(float(self.loss(logits, own)) for own in by_rater))
        self.loss.to(engine.state.device).train()

    def _average(self, engine: Engine) -> None:
        engine.state.metrics["val_loss"] = fmean(gather_items([*self.values]))
