"""A network of one weight, and MONAI's trainer of it."""

import torch
from monai.engines import SupervisedTrainer


class OneWeight(torch.nn.Module):
    """x times a weight that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.detach().mean().reshape(1)
        return x * self.weight


def trainer(
    values: list[float], handlers: list, network=None, lr: float = 1.0, optimizer=None, **others
) -> SupervisedTrainer:
    """MONAI's trainer on batches of one number x; the loss is -x times the weight, so its gradient is -x."""
    network = network or OneWeight()
    batches = [{"image": torch.tensor([[v]]), "label": torch.zeros(1, 1), "case": [f"case {v:g}"]} for v in values]
    return SupervisedTrainer(
        device="cpu",
        max_epochs=others.pop("max_epochs", 1),
        train_data_loader=batches,
        network=network,
        optimizer=optimizer or torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=lambda pred, _: -pred,
        train_handlers=handlers,
        **others,
    )
