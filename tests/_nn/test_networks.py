"""Layers against NumPy loops, networks against their shapes, your own ones through the API."""

import copy
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy import special
from sklearn.datasets import load_digits
from torch import nn

from helpers import generator, normal
from skae import Autoencoder
from skae._nn.networks import (
    ACTIVATIONS,
    OUT_RANGES,
    POOLINGS,
    Pool,
    Resize,
    TiedDecoder,
    activation_module,
    check_network,
    conv_decoder,
    conv_encoder,
    grid_decoder,
    grid_encoder,
    grid_size,
    halved_sizes,
    linear_layers,
    mlp,
    start_at,
)


def encoder_of(shape, channels, n_outputs=3, **options):
    options = {"activation": "relu", "pooling": "stride", "normalization": None, **options}
    return conv_encoder(shape, channels, n_outputs, generator=generator(), **options)


def decoder_of(shape, channels, n_inputs=3, **options):
    options = {"activation": "relu", "normalization": None, **options}
    return conv_decoder(shape, channels, n_inputs, generator=generator(), **options)


# ---------------------------------------------------------------------------- layers


FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "silu": lambda x: x * special.expit(x),
    "tanh": np.tanh,
    "logistic": special.expit,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_their_formulas(name):
    x = np.linspace(-50, 50, 1001)
    found = activation_module(name)(torch.tensor(x)).numpy()
    np.testing.assert_allclose(found, FORMULAS[name](x), rtol=1e-12)


@pytest.mark.parametrize("name", OUT_RANGES)
def test_output_activations_stay_in_their_range(name):
    x = activation_module(name)(torch.linspace(-100, 100, 999))
    low, high = OUT_RANGES[name]
    assert x.min() == low
    assert x.max() == (100.0 if name == "relu" else high)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "silu", "identity"])
def test_signals_keep_their_size_through_many_layers(name):
    """The gains make up for what the activation takes: ten layers neither fade nor blow up."""
    network = mlp((400,) * 11, name, None, generator())
    with torch.no_grad():
        size = network(normal(300, 400)).square().mean().sqrt()
    assert 0.4 < float(size) < 2.5


POOLS = {"max": np.max, "average": np.mean, "min": np.min}


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize(("height", "width"), product([1, 2, 5, 6], [1, 3, 4]))
def test_pools_take_what_there_is_of_every_2x2(kind, height, width):
    """Also at an odd border, also of negative values."""
    for shift in (-5.0, 0.0, 5.0):
        x = normal(2, 3, height, width) + shift
        found = Pool(kind)(x).numpy()
        assert found.shape == (2, 3, -(-height // 2), -(-width // 2))
        for i, j in np.ndindex(found.shape[2:]):
            block = x.numpy()[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            expected = POOLS[kind](block, axis=(2, 3))
            np.testing.assert_allclose(found[:, :, i, j], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), product([2, 3, 8, 9, 31], [2, 5, 14]))
def test_resizing_repeats_every_pixel_where_pooling_took_it_from(height, width):
    """Undoing a halving: every pixel of the large image is that of its 2x2."""
    x = normal(2, 3, *halved_sizes(height, width, 1)[1])
    found = Resize((height, width))(x).numpy()
    expected = x.numpy().repeat(2, axis=2).repeat(2, axis=3)[:, :, :height, :width]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("height", "width"), product(range(1, 20), [1, 2, 7, 28]))
def test_halving_rounds_up_until_nothing_is_left_to_halve(height, width):
    sizes = halved_sizes(height, width, 4)
    assert sizes[0] == (height, width)
    expected = [(int(np.ceil(height / 2**i)), int(np.ceil(width / 2**i))) for i in range(5)]
    assert sizes == expected


# -------------------------------------------------------------------------- networks


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (4, 6, 6, 2)])
def test_a_perceptron_is_its_matrix_products(sizes, normalization):
    """With the activation between the layers and none at the end."""
    network = mlp(sizes, "tanh", normalization, generator()).double().eval()
    for parameter in network.parameters():  # biases too
        parameter.data = torch.randn(parameter.shape, generator=generator(1), dtype=torch.float64)
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm1d)]
    assert len(norms) == (len(sizes) - 2 if normalization else 0)
    x = normal(8, sizes[0]).double()
    h = x.numpy()
    layers = linear_layers(network)
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(pairwise(sizes))
    for i, layer in enumerate(layers):
        h = h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if i < len(layers) - 1:
            if normalization:
                scale, shift = norms[i].weight.detach().numpy(), norms[i].bias.detach().numpy()
                h = h / np.sqrt(1 + norms[i].eps) * scale + shift
            h = np.tanh(h)
    np.testing.assert_allclose(network(x).detach(), h, rtol=1e-10, atol=1e-12)


SIDES = [4, 5, 6, 7, 9, 12, 13]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("channels", [(2,), (2, 3), (2, 3, 4), (2, 2, 2, 2)])
def test_convolutions_halve_images_and_get_back(channels, pooling):
    """Of every size, odd, even and not square: the shapes inside and at both ends."""
    for height, width in product(SIDES, SIDES):
        shape = (2, height, width)
        encoder = encoder_of(shape, channels, pooling=pooling)
        decoder = decoder_of(shape, channels[::-1])
        x = normal(2, 2 * height * width)
        sizes = halved_sizes(height, width, len(channels))
        h, small, large = x, [], []
        for layer in encoder[:-2]:
            h = layer(h)
            if isinstance(layer, nn.Conv2d if pooling == "stride" else Pool):
                small.append(tuple(h.shape[1:]))
        assert small == [(n, *size) for n, size in zip(channels, sizes[1:], strict=True)]
        h = encoder(x)
        assert h.shape == (2, 3)
        for layer in decoder:
            h = layer(h)
            if isinstance(layer, Resize):
                large.append(tuple(h.shape[1:]))
        assert large == [(n, *size) for n, size in zip(channels, sizes, strict=False)][::-1]
        assert h.shape == x.shape


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_follows_every_hidden_convolution(channels, normalization):
    shape = (channels, 6, 9)
    encoder = encoder_of(shape, (4, 5), normalization=normalization)
    decoder = decoder_of(shape, (5, 4), normalization=normalization)
    counts = [sum(isinstance(m, nn.BatchNorm2d) for m in n) for n in (encoder, decoder)]
    assert counts == ([2, 1] if normalization else [0, 0])
    assert decoder(encoder(normal(4, channels * 54))).shape == (4, channels * 54)


def test_rows_are_images_channel_by_channel():
    """A change of one pixel changes what the convolution makes of its surroundings alone."""
    encoder = encoder_of((2, 8, 8), (3,), pooling="max")
    x = normal(1, 128)
    y = x.clone()
    y[0, 64 + 3 * 8 + 4] += 1.0  # channel 1, row 3, column 4
    first = encoder[:2]
    changed = (first(x) != first(y))[0].any(0).nonzero()
    assert changed.tolist() == [[i, j] for i, j in product((2, 3, 4), (3, 4, 5))]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_convolutions_are_those_of_a_loop(pooling):
    """3x3 over zeros beyond the border; a stride takes every second pixel."""
    encoder = encoder_of((2, 5, 6), (3,), pooling=pooling).double()
    x = normal(1, 60).double()
    weight, bias = (p.detach().numpy() for p in encoder[1].parameters())
    padded = np.pad(x.numpy().reshape(2, 5, 6), ((0, 0), (1, 1), (1, 1)))
    expected = np.array(
        [
            [[(padded[:, i : i + 3, j : j + 3] * w).sum() + b for j in range(6)] for i in range(5)]
            for w, b in zip(weight, bias, strict=True)
        ]
    )
    step = 2 if pooling == "stride" else 1
    np.testing.assert_allclose(
        encoder[:2](x).detach()[0], expected[:, ::step, ::step], rtol=1e-10, atol=1e-12
    )


BUILDERS = {
    "mlp": lambda generator: mlp((5, 7, 3), "relu", "batch", generator),
    "conv encoder": lambda generator: conv_encoder(
        (2, 5, 6),
        (3, 4),
        2,
        activation="tanh",
        pooling="max",
        normalization="batch",
        generator=generator,
    ),
    "conv decoder": lambda generator: conv_decoder(
        (2, 5, 6), (4, 3), 2, activation="tanh", normalization="batch", generator=generator
    ),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_weights_depend_on_the_generator_alone(build):
    """torch's global generator is neither read nor advanced."""
    torch_state = torch.get_rng_state()
    first = build(generator(3)).state_dict()
    assert torch.equal(torch.get_rng_state(), torch_state)
    with torch.random.fork_rng([]):
        torch.manual_seed(99)
        again = build(generator(3)).state_dict()
    other = build(generator(4)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].ndim > 1]
    assert drawn
    assert all(not torch.equal(first[name], other[name]) for name in drawn)


def test_fitting_leaves_torchs_global_generator_alone():
    """Whether the networks are built in, or yours and with dropout; the fit is the seed's."""
    X = load_digits().data[:200]
    own = nn.Sequential(nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    for encoder in (None, own):
        state = torch.get_rng_state()
        codes = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            model = Autoencoder(2, encoder=encoder, max_iter=2, random_state=0)
            codes.append(model.fit_transform(X))
            assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(*codes)
        torch.set_rng_state(state)


# ----------------------------------------------------------------------- tied weights


@pytest.mark.parametrize("sizes", [(5, 2), (5, 4, 2), (6, 5, 4, 3)])
def test_a_tied_decoder_has_the_encoders_weights_transposed(sizes):
    """Biases are its own; nothing is counted twice."""
    encoder = mlp(sizes, "tanh", None, generator())
    decoder = TiedDecoder(encoder, "tanh", sizes[0])
    for bias in decoder.biases:
        bias.data = normal(len(bias), seed=1)
    z = normal(7, sizes[-1])
    h = z.double().numpy()
    for i, layer in enumerate(linear_layers(encoder)[::-1]):
        bias = decoder.biases[i].detach().double().numpy()
        h = h @ layer.weight.detach().double().numpy() + bias
        if i < len(sizes) - 2:
            h = np.tanh(h)
    np.testing.assert_allclose(decoder(z).detach(), h, rtol=1e-5, atol=1e-6)
    n_weights = sum(a * b for a, b in pairwise(sizes))
    both = nn.ModuleList([encoder, decoder])
    assert sum(p.numel() for p in both.parameters()) == n_weights + sum(sizes[1:]) + sum(sizes[:-1])
    assert not any("weight" in name for name in decoder.state_dict())


def test_the_gradient_of_a_tied_weight_is_the_sum_of_both_uses():
    """By finite differences in one entry of the one parameter."""
    encoder = mlp((4, 3, 2), "tanh", None, generator()).double()
    decoder = TiedDecoder(encoder, "tanh", 4).double()
    x = normal(6, 4).double()

    def loss():
        return (decoder(encoder(x)) - x).square().sum()

    loss().backward()
    for layer in linear_layers(encoder):
        for entry in [(0, 0), (1, 2)]:
            expected = 0.0
            with torch.no_grad():
                for step in (1e-6, -1e-6):
                    layer.weight[entry] += step
                    expected += float(loss()) / (2 * step)
                    layer.weight[entry] -= step
            assert float(layer.weight.grad[entry]) == pytest.approx(expected, rel=1e-6)


def test_a_tied_decoder_does_not_write_the_mask():
    """Of an encoder that reads values and their mask, it takes the values' weights."""
    encoder = mlp((10, 4, 2), "relu", None, generator())
    decoder = TiedDecoder(encoder, "relu", 5)
    z = normal(3, 2)
    first, second = linear_layers(encoder)
    h = torch.relu(z @ second.weight) @ first.weight[:, :5]
    assert torch.allclose(decoder(z), h, atol=1e-6)


def test_copies_of_a_tied_pair_are_tied_to_each_other():
    encoder = mlp((4, 3, 2), "relu", None, generator())
    pair = nn.ModuleList([encoder, TiedDecoder(encoder, "relu", 4)])
    other = copy.deepcopy(pair)
    z = normal(3, 2)
    before = pair[1](z)
    with torch.no_grad():
        for layer in linear_layers(other[0]):
            layer.weight.mul_(2)
    assert torch.equal(pair[1](z), before)
    np.testing.assert_allclose(other[1](z).detach(), 4 * before.detach(), rtol=1e-5)


def test_a_tied_autoencoder_stays_tied_through_training():
    X = load_digits().data[:300]
    model = Autoencoder(3, hidden_layer_sizes=(10,), tied_weights=True, max_iter=3, random_state=0)
    module = model.fit(X).net_.module_
    up = [layer.weight.detach().double().numpy() for layer in linear_layers(module.encoder)]
    down = [bias.detach().double().numpy() for bias in module.decoder.biases]
    Z = model.transform(X[:5]).astype(float)
    rows = np.maximum(Z @ up[1] + down[0], 0) @ up[0] + down[1]
    expected = rows * np.sqrt(X.var(axis=0).mean()) + X.mean(axis=0)
    np.testing.assert_allclose(model.inverse_transform(Z), expected, rtol=1e-4, atol=1e-4)
    n_parameters = sum(p.numel() for p in module.parameters())
    assert n_parameters == 64 * 10 + 10 * 3 + 10 + 3 + 10 + 64


# -------------------------------------------------------------------- where they start


@pytest.mark.parametrize("kind", ["mlp", "tied", "linear"])
def test_decoders_start_at_the_given_output(kind):
    """At the code zero, whose hidden layers are zero."""
    sizes = (2, 6) if kind == "linear" else (2, 4, 6)
    decoder = mlp(sizes, "relu", None, generator())
    if kind == "tied":
        decoder = TiedDecoder(mlp((6, 4, 2), "relu", None, generator()), "relu", 6)
    output = torch.linspace(-3, 3, 6)
    start_at(decoder, output)
    assert torch.allclose(decoder(torch.zeros(1, 2))[0], output)


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_start_at_the_means_of_their_channels(channels):
    decoder = decoder_of((channels, 4, 5), (6, 5))
    output = normal(channels * 20)
    start_at(decoder, output)
    expected = output.numpy().reshape(channels, 20).mean(axis=1).repeat(20)
    np.testing.assert_allclose(decoder(torch.zeros(1, 3))[0].detach(), expected, rtol=1e-5)


# ---------------------------------------------------------------------- what is checked


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(5, 4), r"encoder maps a batch of shape \(2, 5\) to \(2, 4\); expected \(2, 3\)"),
        (
            nn.Linear(6, 3),
            r"encoder must accept a batch of shape \(2, 5\), but .*: mat1 .*\(2x5 and 6x3\)",
        ),
        (nn.Unflatten(1, (5, 1)), r"\(2, 5\) to \(2, 5, 1\); expected \(2, 3\)"),
        (nn.LSTM(5, 3), r"encoder maps a batch of shape \(2, 5\) to tuple; expected \(2, 3\)"),
    ],
    ids=["outputs", "inputs", "dimensions", "no tensor"],
)
def test_a_network_that_does_not_fit_is_shown_both_shapes(network, message):
    with pytest.raises(ValueError, match=message):
        check_network("encoder", network, 5, 3)


@pytest.mark.parametrize("training", [True, False])
def test_checking_leaves_no_trace(training):
    """Neither on the running means of batch normalisation nor on the mode."""
    network = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).train(training)
    before = copy.deepcopy(network.state_dict())
    check_network("encoder", network, 5, 3)
    assert network.training == training
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ({"encoder": nn.Linear(64, 3)}, r"encoder maps .*\(2, 64\) to \(2, 3\); .*\(2, 2\)"),
        ({"encoder": nn.Linear(60, 2)}, r"encoder must accept a batch of shape \(2, 64\)"),
        ({"decoder": nn.Linear(2, 60)}, r"decoder maps .*\(2, 2\) to \(2, 60\); .*\(2, 64\)"),
        ({"decoder": nn.Linear(3, 64)}, r"decoder must accept a batch of shape \(2, 2\)"),
    ],
    ids=["encoder's outputs", "encoder's inputs", "decoder's outputs", "decoder's inputs"],
)
def test_your_networks_are_checked_before_training(networks, message):
    with pytest.raises(ValueError, match=message):
        Autoencoder(2, max_iter=1, **networks).fit(load_digits().data[:50])


# --------------------------------------------------------------------- your own networks


DIGITS = load_digits().data[:200] / 16


def conv_pair(n_codes=2):
    encoder = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, n_codes)
    )
    decoder = nn.Sequential(nn.Linear(n_codes, 64), nn.Unflatten(1, (1, 8, 8)))
    return encoder, decoder


OWN = {
    "rows": lambda: (
        (nn.Sequential(nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 2)), nn.Linear(2, 64)),
        {},
    ),
    "images": lambda: (conv_pair(), {"image_shape": (1, 8, 8)}),
}


@pytest.mark.parametrize("which", ["encoder", "decoder", "both"])
@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_your_networks_are_copied_not_trained_in_place(make, which):
    """The copies are trained, from where yours are; a second fit starts there again."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)  # of some others no unit is on, and no weight is trained
        pair, options = make()
    given = dict(zip(("encoder", "decoder"), pair, strict=True))
    given = {name: network for name, network in given.items() if which in (name, "both")}
    before = {name: copy.deepcopy(network.state_dict()) for name, network in given.items()}
    params = dict(max_iter=2, learning_rate_init=1e-5, random_state=0, **options, **given)
    model = Autoencoder(2, **params).fit(DIGITS)
    for name, network in given.items():
        assert getattr(model, name) is network
        trained = getattr(model.net_.module_, name)
        trained = getattr(trained, "network", trained)
        for key, value in network.state_dict().items():
            assert torch.equal(value, before[name][key])
            assert not torch.equal(value, trained.state_dict()[key])
            assert torch.allclose(value, trained.state_dict()[key], atol=1e-3)
    np.testing.assert_array_equal(
        model.transform(DIGITS), Autoencoder(2, **params).fit(DIGITS).transform(DIGITS)
    )


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_your_networks_read_rows_as_they_are(make):
    """And write them so: codes and reconstructions are the trained copies' own."""
    (encoder, decoder), options = make()
    model = Autoencoder(2, encoder=encoder, decoder=decoder, max_iter=1, random_state=0, **options)
    model.fit(DIGITS)
    module = model.net_.module_
    shape = options.get("image_shape", (64,))
    encode, decode = (
        getattr(network, "network", network) for network in (module.encoder, module.decoder)
    )
    with torch.no_grad():
        z = encode(torch.tensor(DIGITS, dtype=torch.float32).reshape(-1, *shape))
        rows = decode(z).reshape(-1, 64)
    np.testing.assert_allclose(model.transform(DIGITS), z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.reconstruct(DIGITS), rows, rtol=1e-5, atol=1e-6)


class Recorder(nn.Module):
    """A linear layer that remembers what it was given."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer, self.seen = nn.Linear(n_in, n_out), []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.layer(x)


def test_an_encoder_of_rows_with_nan_reads_the_mask_beside_them():
    """Values that are missing as zeros, then 1 where a value was seen."""
    X = DIGITS.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.3] = np.nan
    model = Autoencoder(2, encoder=Recorder(128, 2), max_iter=1, random_state=0).fit(X)
    recorder = model.net_.module_.encoder
    recorder.seen.clear()
    model.transform(X)
    found = torch.cat(recorder.seen).numpy()
    np.testing.assert_array_equal(found, np.hstack([np.float32(np.nan_to_num(X)), ~np.isnan(X)]))
    recorder.seen.clear()
    model.transform(DIGITS)  # of complete rows, all was seen
    found = torch.cat(recorder.seen).numpy()
    np.testing.assert_array_equal(found, np.hstack([np.float32(DIGITS), np.ones_like(DIGITS)]))
    with pytest.raises(ValueError, match=r"encoder must accept a batch of shape \(2, 128\)"):
        Autoencoder(2, encoder=nn.Linear(64, 2), max_iter=1).fit(X)


class ImageRecorder(Recorder):
    """The same, of flattened images."""

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.layer(x.flatten(1))


def test_an_encoder_of_images_with_nan_reads_the_mask_as_further_channels():
    """As the built-in convolutions do: first the values, then 1 where a value was seen."""
    X = np.random.default_rng(0).random((20, 2 * 4 * 5))
    X[np.random.default_rng(1).random(X.shape) < 0.3] = np.nan
    encoder = ImageRecorder(80, 2)
    model = Autoencoder(2, encoder=encoder, image_shape=(2, 4, 5), max_iter=1, random_state=0)
    recorder = model.fit(X).net_.module_.encoder.network
    recorder.seen.clear()
    model.transform(X)
    images = X.reshape(20, 2, 4, 5)
    expected = np.concatenate([np.float32(np.nan_to_num(images)), ~np.isnan(images)], axis=1)
    np.testing.assert_array_equal(torch.cat(recorder.seen), expected)


def test_a_decoder_reads_codes_though_there_be_as_many_as_pixels():
    """Only rows of pixels are images."""
    X = np.random.default_rng(0).normal(size=(20, 16))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 16))
    decoder = Recorder(16, 16)
    params = {"image_shape": (1, 4, 4), "max_iter": 1, "random_state": 0}
    model = Autoencoder(16, encoder=encoder, decoder=decoder, **params).fit(X)
    model.net_.module_.decoder.network.seen.clear()
    model.reconstruct(X)
    assert all(z.shape[1:] == (16,) for z in model.net_.module_.decoder.network.seen)


def test_an_empty_network_of_yours_is_the_identity():
    """A container that holds nothing is false in Python, and yet it was given."""
    X = np.random.default_rng(0).normal(size=(20, 3))
    model = Autoencoder(
        3, encoder=nn.Sequential(), decoder=nn.Linear(3, 3), max_iter=1, random_state=0
    )
    np.testing.assert_array_equal(model.fit_transform(X), np.float32(X))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_autoencoder_of_images_is_its_two_networks(pooling):
    """conv through the estimator; with NaN there are twice the channels."""
    X = DIGITS.copy()
    for n_channels in (1, 2):
        model = Autoencoder(
            2,
            network="conv",
            hidden_layer_sizes=(3, 4),
            image_shape=(1, 8, 8),
            pooling=pooling,
            max_iter=1,
            random_state=0,
        ).fit(X)
        first = next(m for m in model.net_.module_.encoder if isinstance(m, nn.Conv2d))
        assert first.in_channels == n_channels
        assert model.transform(X).shape == (200, 2)
        assert model.reconstruct(X).shape == X.shape
        X[::3, ::5] = np.nan


# ------------------------------------------------------------------------------ grids


def grid_encoder_of(shape, channels, n_outputs=3, **options):
    options = {"activation": "relu", "pooling": "stride", "normalization": None, **options}
    return grid_encoder(shape, channels, n_outputs, generator=generator(), **options)


def grid_decoder_of(shape, channels, size, n_inputs=3, **options):
    options = {"activation": "relu", "normalization": None, **options}
    return grid_decoder(shape, channels, n_inputs, size, generator=generator(), **options)


def test_the_size_of_a_grid_is_that_of_a_halved_image():
    """As often as asked, rounding up: pixels that every second one keeps."""
    for height, width, times in product(SIDES, SIDES, range(5)):
        image = np.zeros((height, width))
        for _ in range(times):
            image = image[::2, ::2]
        assert grid_size((3, height, width), times) == image.shape


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("channels", [(2,), (2, 3), (2, 3, 4)])
def test_grids_have_a_vector_for_every_pixel(channels, pooling):
    """Of every image size; the decoder gets back to it."""
    for height, width in product(SIDES, SIDES):
        shape = (2, height, width)
        size = grid_size(shape, len(channels))
        encoder = grid_encoder_of(shape, channels, pooling=pooling)
        decoder = grid_decoder_of(shape, channels[::-1], size)
        x = normal(2, 2 * height * width)
        z = encoder(x)
        assert z.shape == (2, size[0] * size[1] * 3)
        assert decoder(z).shape == x.shape


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_grids_are_normalised_where_other_convolutions_are(normalization):
    """After every hidden convolution, and not at the vectors or the image."""
    shape = (2, 6, 9)
    encoder = grid_encoder_of(shape, (4, 5), normalization=normalization)
    decoder = grid_decoder_of(shape, (5, 4), (2, 3), normalization=normalization)
    counts = [sum(isinstance(m, nn.BatchNorm2d) for m in n) for n in (encoder, decoder)]
    assert counts == ([2, 1] if normalization else [0, 0])


def test_vectors_of_a_grid_are_in_raster_order():
    """The same linear map of every pixel, row after row; the decoder reads them so."""
    shape = (2, 5, 9)
    encoder = grid_encoder_of(shape, (4,)).double()
    x = normal(3, 90).double()
    last = linear_layers(encoder)[-1]
    weight, bias = (p.detach().numpy() for p in last.parameters())
    h = encoder[: list(encoder).index(last) - 1](x).detach().numpy()  # before channels go last
    assert h.shape == (3, 4, 3, 5)
    expected = [
        np.concatenate([weight @ image[:, i, j] + bias for i, j in product(range(3), range(5))])
        for image in h
    ]
    np.testing.assert_allclose(encoder(x).detach(), expected, rtol=1e-10, atol=1e-12)
    decoder = grid_decoder_of(shape, (4,), (3, 5)).double()
    first = linear_layers(decoder)[0]
    weight, bias = (p.detach().numpy() for p in first.parameters())
    z = normal(2, 45).double()
    start = list(decoder).index(first)
    found = decoder[: start + 2](z).detach().numpy()
    for i, j in product(range(3), range(5)):
        vectors = z.numpy()[:, 3 * (5 * i + j) : 3 * (5 * i + j) + 3]
        np.testing.assert_allclose(found[:, :, i, j], vectors @ weight.T + bias, atol=1e-12)


def interval(first, last, times, before, after):
    """Which pixels are read by those from first to last, through layers that halve."""
    for _ in range(times):
        first, last = 2 * first - before, 2 * last + after
    return first, last


def between(places, first, last):
    return [p for p in range(places) if first <= p <= last]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("pooling", ["stride", "average"])
def test_vectors_of_a_grid_see_their_surroundings(pooling, times):
    """By gradients: 3x3 pixels a layer, and with 2x2 averages of these one more."""
    height, width = 11, 14
    encoder = grid_encoder_of(
        (2, height, width), (3, 4)[:times], pooling=pooling, activation="identity"
    )
    size = grid_size((2, height, width), times)
    x = normal(1, 2 * height * width).requires_grad_()
    vectors = encoder(x).view(*size, 3)
    after = 1 if pooling == "stride" else 2
    for i, j in product(range(size[0]), range(size[1])):
        (slope,) = torch.autograd.grad(vectors[i, j].sum(), x, retain_graph=True)
        rows, columns = (slope.view(2, height, width).abs().sum(0) > 0).nonzero().T.tolist()
        assert sorted(set(rows)) == between(height, *interval(i, i, times, 1, after))
        assert sorted(set(columns)) == between(width, *interval(j, j, times, 1, after))


@pytest.mark.parametrize("times", [1, 2])
def test_pixels_are_written_by_the_vectors_near_them(times):
    """By gradients: a 3x3 filter after every doubling."""
    height, width = 8, 12
    size = grid_size((2, height, width), times)
    decoder = grid_decoder_of((2, height, width), (4, 3)[:times], size, activation="identity")
    z = normal(1, size[0] * size[1] * 3).requires_grad_()
    image = decoder(z).view(2, height, width)
    for row, column in product(range(height), range(width)):
        (slope,) = torch.autograd.grad(image[:, row, column].sum(), z, retain_graph=True)
        written = (slope.view(*size, 3).abs().sum(-1) > 0).nonzero().T.tolist()
        for places, where, length in zip(written, (row, column), size, strict=True):
            read = {where}
            for step in range(times):
                side = length * 2 ** (times - step)
                read = {p + d for p in read for d in (-1, 0, 1) if 0 <= p + d < side}
                read = {p // 2 for p in read}
            assert set(places) == read


def test_weights_of_a_grid_do_not_grow_with_the_image():
    """Unlike those of the networks whose codes are of whole images."""

    def n_weights(network):
        return sum(p.numel() for p in network.parameters())

    small, large = (1, 8, 8), (1, 16, 16)
    assert n_weights(grid_encoder_of(small, (4, 5))) == n_weights(grid_encoder_of(large, (4, 5)))
    first, second = (n_weights(grid_decoder_of(s, (5, 4), grid_size(s, 2))) for s in (small, large))
    assert first == second
    # 3x3 filters, biases, and the dense layer between 5 channels of a halved image and 3 codes.
    filters = (9 * 1 * 4 + 4) + (9 * 4 * 5 + 5)
    back = (9 * 5 * 4 + 4) + (9 * 4 * 1 + 1)
    for shape, n_pixels in ((small, 4), (large, 16)):
        assert n_weights(encoder_of(shape, (4, 5))) == filters + 5 * n_pixels * 3 + 3
        assert n_weights(decoder_of(shape, (5, 4))) == back + 5 * n_pixels * 4


@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_weights_of_a_grid_depend_on_the_generator_alone(which):
    """torch's global generator is neither read nor advanced."""
    make = {
        "encoder": lambda: grid_encoder_of((1, 8, 8), (4, 5)),
        "decoder": lambda: grid_decoder_of((1, 8, 8), (5, 4), (2, 2)),
    }[which]
    before = torch.get_rng_state()
    first = make().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng([]):
        torch.manual_seed(99)
        again = make().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
