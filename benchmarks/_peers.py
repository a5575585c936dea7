"""Clocks of epochs, and pythae's trainer, for the benchmarks of networks."""

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from skorch.callbacks import Callback

BATCH = 128


class Clock(Callback):
    """Seconds of every epoch of a skorch net."""

    def on_train_begin(self, net, **kwargs):
        self.seconds = []

    def on_epoch_begin(self, net, **kwargs):
        self.start = time.perf_counter()

    def on_epoch_end(self, net, **kwargs):
        self.seconds.append(time.perf_counter() - self.start)


def train_pythae(model: torch.nn.Module, X: np.ndarray, epochs: int) -> list[float]:
    """Seconds of every epoch of pythae's trainer, from the first batch to the last."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class PythaeClock(TrainingCallback):
        seconds: list[float] = []  # noqa: RUF012

        def on_epoch_begin(self, training_config, **kwargs):
            self.start = time.perf_counter()

        def on_train_step_end(self, training_config, **kwargs):
            self.end = time.perf_counter()

        def on_epoch_end(self, training_config, **kwargs):
            self.seconds.append(self.end - self.start)

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        trainer = BaseTrainer(
            model,
            train_dataset=BaseDataset(torch.from_numpy(X), torch.zeros(len(X))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                per_device_train_batch_size=BATCH,
                learning_rate=1e-3,
                no_cuda=True,
            ),
            callbacks=[clock := PythaeClock()],
        )
        trainer.train()
    return clock.seconds


def pythae_network(
    kind: str, n_features: int, n_hidden: int, n_codes: int
) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    """pythae's AE or VAE of one hidden layer of rectifiers a side; its encoder, its decoder."""
    import pythae.models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    n_heads = 2 if kind == "VAE" else 1  # means, and logarithms of variances

    def layers(n_in: int, n_out: int) -> torch.nn.Module:
        linear = torch.nn.Linear
        return torch.nn.Sequential(linear(n_in, n_hidden), torch.nn.ReLU(), linear(n_hidden, n_out))

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.layers = layers(n_features, n_heads * n_codes)

        def forward(self, x):
            heads = self.layers(x).chunk(n_heads, 1)
            return ModelOutput(embedding=heads[0], log_covariance=heads[-1])

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = layers(n_codes, n_features)

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    encoder, decoder = Encoder(), Decoder()
    config = getattr(pythae.models, f"{kind}Config")(input_dim=(n_features,), latent_dim=n_codes)
    model = getattr(pythae.models, kind)(config, encoder=encoder, decoder=decoder)
    return model, encoder.layers, decoder.layers


def median_epoch(runs: dict[str, Callable[[], list[float]]], rounds: int) -> dict[str, float]:
    """Median seconds of an epoch, the runs taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name] += run()
    return {name: float(np.median(times)) for name, times in seconds.items()}
