"""Every network: parameter counts of the papers, NumPy forward passes, norms in every place, sizes that fit or not."""

import inspect

import jax
import numpy as np
import pytest

from kipjax import models
from kipjax.checks import InputError
from tests.models.common import count, images, random_variables, run, shapes
from tests.reference import models as reference

GREY, COLOUR, DIGITS = (2, 28, 28, 1), (2, 32, 32, 3), (2, 8, 8, 1)


def norms_in(params):
    return sum("scale" in layer for layer in params.values())


@pytest.mark.parametrize(
    ("name", "options", "shape", "parameters"),
    [
        ("convnet", {}, GREY, 1_558_538),
        ("convnet", {}, COLOUR, 1_560_842),
        ("dc_convnet", {}, GREY, 317_706),
        ("dc_convnet", {}, COLOUR, 320_010),
        # dc_convnet with a convolution of 128 to 128 more, no norm (2 * 3 * 128); grey: a last map of 3x3, not 4x4
        ("kip_convnet", {}, GREY, 317_706 + 9 * 128**2 + 128 - 768 - (16 - 9) * 128 * 10),
        ("kip_convnet", {}, COLOUR, 320_010 + 9 * 128**2 + 128 - 768),
        ("rfad_convnet", {}, GREY, 9 * 256 + 256 + 2 * (9 * 256**2 + 256) + 2304 * 10 + 10),
        ("mlp", {}, GREY, 118_282),
        ("mlp", {}, COLOUR, 411_146),
        ("lenet", {}, GREY, 61_706),
        ("lenet", {}, (2, 32, 32, 1), 61_706),
        ("lenet", {}, COLOUR, 62_006),
        ("alexnet", {}, COLOUR, 1_872_202),
        ("vgg11", {}, COLOUR, 9_231_114),
        ("resnet18", {}, GREY, 11_172_810),
        ("resnet18", {}, COLOUR, 11_173_962),
        ("resnet18:batch", {}, COLOUR, 11_173_962),
        ("resnet18_ap", {}, GREY, 11_213_770),
        ("resnet18_ap:batch", {}, COLOUR, 11_250_762),
        ("wide_resnet", {"depth": 28, "widen": 10}, COLOUR, 36_479_194),
        # convolutions, 2 x (16 + 10 x 16 + 11 x 32 + 11 x 64) of batch norm, and a head of 64 x 10 + 10
        ("resnet32", {}, COLOUR, 463_792 + 2 * 1232 + 650),
        ("resnet32", {"classifier": "cosine"}, COLOUR, 463_792 + 2 * 1232 + 640 + 1),
    ],
)
def test_parameter_counts(name, options, shape, parameters):
    assert count(models.get(name, num_classes=10, **options), shape) == parameters


FEATURES = {  # of images 28x28x1, 32x32x3 and 8x8x1; None where the image is too small
    "convnet": (8192, 8192, 512),
    "dc_convnet": (2048, 2048, 128),
    "kip_convnet": (1152, 2048, 128),
    "rfad_convnet": (2304, 4096, 256),
    "mlp": (128, 128, 128),
    "lenet": (84, 84, None),
    "alexnet": (3072, 3072, 192),
    "vgg11": (512, 512, None),
    "resnet18": (512, 512, None),
    "resnet18_ap": (4608, 8192, None),
    "wide_resnet": (256, 256, 256),
    "resnet32": (64, 64, 64),
    "alex_cifar": (192, 192, 192),
    "gtn": (256, 256, 256),
    "gtn_larger": (256, 256, 256),
}
SENTENCES = {"text_convnet", "bi_rnn", "bi_lstm"}


@pytest.mark.parametrize("name", sorted(set(models.names()) - SENTENCES))
def test_every_network_takes_grey_colour_and_where_it_can_digits(name):
    model = models.get(name, num_classes=7)
    for shape, width in zip((GREY, COLOUR, DIGITS), FEATURES[name]):
        if width is None:
            with pytest.raises(InputError, match=rf"{type(model).__name__}: for examples of shape \(8, 8, 1\): .*use"):
                shapes(model, shape)
            continue
        variables = shapes(model, shape)
        head = variables["params"]["head"]
        assert head["kernel"].shape == (width, 7) and head["bias"].shape == (7,)
        x = jax.ShapeDtypeStruct(shape, np.float32)
        logits, features = jax.eval_shape(lambda v, x: model.apply(v, x, features=True), variables, x)
        assert (logits.shape, features.shape) == ((2, 7), (2, width))


def test_digits_go_through_a_resnet_whose_norm_allows_it():
    for name in ("resnet18:batch", "resnet18:group", "resnet18_ap:layer"):
        assert shapes(models.get(name, num_classes=10), DIGITS)["params"]["head"]["kernel"].shape == (512, 10)


CASES = {
    "convnet": ({"width": 4, "depth": 2}, (2, 6, 7, 1), lambda net, x: net.convnet(x, 2, "after", 3)),
    "convnet:batch": ({"width": 4, "depth": 2}, (2, 8, 8, 3), lambda net, x: net.convnet(x, 2, "after", 1)),
    "convnet:layer": (
        {"width": 4, "depth": 2, "norm_placement": "before_conv"},
        (2, 8, 8, 3),
        lambda net, x: net.convnet(x, 2, "before", 1),
    ),
    "dc_convnet": (
        {"width": 4, "depth": 1, "pool": "max"},
        (2, 4, 4, 1),
        lambda net, x: net.convnet(x, 1, "after", 3, pooling="max"),
    ),
    "dc_convnet:group": (
        {"width": 4, "depth": 2, "pool": "none"},
        (2, 4, 4, 2),
        lambda net, x: net.convnet(x, 2, "after", 1, pooling="none"),
    ),
    "kip_convnet:batch": (
        {"width": 4, "depth": 2},
        (2, 8, 8, 1),
        lambda net, x: net.convnet(x, 2, "before", 1, stem=True),
    ),
    "rfad_convnet": ({"width": 4, "depth": 2}, (2, 7, 7, 1), lambda net, x: net.convnet(x, 2, "after", 1)),
    "mlp:batch": ({"width": 5, "depth": 3}, (3, 4, 4, 1), lambda net, x: net.mlp(x)),
    "lenet": ({}, (2, 28, 28, 3), lambda net, x: net.lenet(x, 2)),
    "lenet:instance": ({}, (2, 32, 32, 3), lambda net, x: net.lenet(x, 0)),
    "resnet18:batch": ({"width": 2}, (2, 9, 8, 1), lambda net, x: net.resnet18(x)),
    "resnet18_ap:group": ({"width": 4}, (2, 9, 8, 3), lambda net, x: net.resnet18(x, pooled=True)),
    "wide_resnet": ({"depth": 16, "widen": 1}, (2, 8, 8, 3), lambda net, x: net.wide_resnet(x, 2)),
    "resnet32": ({"depth": 14, "width": 2}, (2, 8, 9, 3), lambda net, x: net.cifar_resnet(x, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_pass_matches_numpy(name):
    options, shape, oracle = CASES[name]
    model = models.get(name, num_classes=3, **options)
    variables, x = random_variables(model, shape), images(*shape)
    logits, features = run(lambda v, x: model.apply(v, x, features=True), variables, x)
    expected = oracle(reference.Network(variables, model.norm), x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=2e-5)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, features @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("convnet", 3),
        ("dc_convnet", 3),
        ("kip_convnet", 3),
        ("rfad_convnet", 3),
        ("mlp", 2),
        ("lenet", 2),
        ("alexnet", 5),
        ("vgg11", 8),
        ("resnet18", 1 + 16 + 3),
        ("resnet18_ap", 1 + 16 + 3),
        ("wide_resnet", 12 + 1),
        ("resnet32", 1 + 30 + 2),
    ],
)
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_the_norm_reaches_every_place(name, places, norm):
    variables = shapes(models.get(name, num_classes=10, norm=norm), COLOUR)
    assert norms_in(variables["params"]) == (0 if norm == "none" else places)
    assert len(variables.get("batch_stats", {})) == (places if norm == "batch" else 0)


def test_before_conv_leaves_the_first_convolution_alone():
    params = shapes(models.get("convnet:batch", num_classes=10, norm_placement="before_conv"), COLOUR)["params"]
    assert [name for name in params if name.startswith("norm")] == ["norm1", "norm2"]
    assert [params[f"norm{i}"]["scale"].shape for i in (1, 2)] == [(128,), (256,)]


@pytest.mark.parametrize("name", ["convnet:batch", "mlp:batch"])
def test_training_uses_the_batch_and_moves_the_statistics(name):
    model = models.get(name, num_classes=3, width=4)
    variables, x = random_variables(model, (4, 8, 8, 1)), images(4, 8, 8, 1)
    (predicted, same), (trained, moved) = run(
        lambda v, x: [model.apply(v, x, train=train, mutable=["batch_stats"]) for train in (False, True)], variables, x
    )
    assert np.abs(predicted - trained).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], variables["batch_stats"])
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), moved["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(changed))
    momentum = 0.1 if name.startswith("convnet") else 0.9
    assert model.momentum == momentum


def test_the_activation_is_the_one_asked_for():
    shape = (2, 8, 8, 1)
    outputs = []
    for options in (
        {},
        {"activation": "softplus"},
        {"activation": "softplus", "sharpness": 5.0},
        {"activation": "tanh"},
    ):
        model = models.get("convnet", num_classes=3, width=4, depth=1, **options)
        outputs.append(np.asarray(model.apply(random_variables(model, shape), images(*shape))))
    gaps = [np.abs(a - b).max() for i, a in enumerate(outputs) for b in outputs[:i]]
    assert min(gaps) > 1e-4 and gaps[0] < 0.05


@pytest.mark.parametrize("name", ["convnet", "dc_convnet", "kip_convnet", "rfad_convnet"])
def test_initial_parameters_follow_the_paper(name):
    model = models.get(name, num_classes=500, depth=2, width=64)
    params = run(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))["params"]
    layer = params["conv1"]
    fan_in = np.prod(layer["kernel"].shape[:3])
    gain, bias, head_bias = {
        "convnet": (1, 0, 0),
        "dc_convnet": (1 / 3, (3 * fan_in) ** -0.5, (3 * params["head"]["kernel"].shape[0]) ** -0.5),
        "kip_convnet": (1, 0, 0.1),
        "rfad_convnet": (2, 0.1, 0.1),
    }[name]
    np.testing.assert_allclose(np.var(layer["kernel"]), gain / fan_in, rtol=0.1)
    np.testing.assert_allclose(np.std(layer.get("bias", 0.0)), bias, rtol=0.25)
    np.testing.assert_allclose(np.std(params["head"]["bias"]), head_bias, rtol=0.15)


def test_the_cosine_classifier_is_bounded_and_knows_no_norms():
    model = models.get("convnet", num_classes=3, width=4, depth=1, classifier="cosine")
    variables, x = random_variables(model, DIGITS), images(*DIGITS)
    logits, h = model.apply(variables, x, features=True)
    head = variables["params"]["head"]
    sigma, kernel = head["scale"], head["kernel"]
    for logit, feature in zip(logits, np.asarray(h, np.float64)):
        expected = sigma * (feature @ kernel) / np.linalg.norm(feature) / np.linalg.norm(kernel, axis=0)
        np.testing.assert_allclose(logit, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(logits).max() <= abs(sigma) and sigma.shape == ()
    variables["params"]["head"]["kernel"] = kernel * np.array([1.0, 5.0, 0.1])
    np.testing.assert_allclose(model.apply(variables, x), logits, rtol=1e-4, atol=1e-6)
    assert run(model.init, jax.random.key(0), x)["params"]["head"]["scale"] == 1


def test_resnet32_ends_without_an_activation():
    shape = (4, 8, 8, 3)
    for last in (False, True):
        model = models.get("resnet32", num_classes=3, depth=8, width=2, last_activation=last)
        _, h = model.apply(random_variables(model, shape), images(*shape), features=True)
        assert (h.min() >= 0) == last


def test_the_forced_lowering_reaches_the_convolutions():
    x = jax.ShapeDtypeStruct(COLOUR, np.float32)
    for name in ("convnet", "lenet", "resnet18", "wide_resnet"):
        model = models.get(name, num_classes=10, lowering="conv")
        variables = shapes(model, COLOUR)
        text = str(jax.make_jaxpr(model.apply)(variables, x))
        kernels = sum(np.ndim(layer.get("kernel", np.zeros(0))) == 4 for layer in variables["params"].values())
        assert text.count("= conv_general_dilated") == kernels > 0


def test_integers_are_images_too():
    model = models.get("mlp", num_classes=3, width=2)
    variables, x = random_variables(model, DIGITS), np.arange(128, dtype=np.uint8).reshape(DIGITS)
    np.testing.assert_array_equal(model.apply(variables, x), model.apply(variables, x.astype(np.float32)))


def test_mlp_takes_any_examples():
    assert shapes(models.get("mlp", num_classes=3), (2, 5))["params"]["dense0"]["kernel"].shape == (5, 128)


@pytest.mark.parametrize(
    ("side", "depth"),
    [(2, 1), (3, 1), (4, 2), (8, 3), (16, 3), (28, 3), (32, 3), (63, 3), (64, 4), (96, 4), (128, 5), (256, 6)],
)
def test_depth_for(side, depth):
    assert models.depth_for(side) == depth
    model = models.get("convnet", num_classes=2, width=1, depth=depth)
    assert shapes(model, (1, side, side, 3))["params"]["head"]["kernel"].shape[0] >= 2 ** (depth - 1)


@pytest.mark.parametrize("side", [1, 0, -4, 28.0, True, None])
def test_depth_for_refuses(side):
    with pytest.raises(InputError, match=r"depth_for: side is .*; it must be a whole number, at least 2"):
        models.depth_for(side)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("convnet", (28, 28, 1), r"ConvNet: x has shape \(28, 28, 1\); expected \[n, h, w, c\]"),
        ("mlp", (28,), r"MLP: x has shape \(28,\); expected \[n, \.\.\.\]"),
        (
            "convnet",
            (2, 7, 7, 3),
            r"ConvNet: for examples of shape \(7, 7, 3\): layers.pool: a map of 1x1 .*less depth",
        ),
        ("vgg11", (2, 28, 28, 3), r"VGG11: for examples of shape \(28, 28, 3\): norms.Norm: every mean of instance"),
        ("vgg11:none", (2, 28, 28, 3), r"VGG11: for examples of shape \(28, 28, 3\): layers.pool: a map of 1x1"),
        ("lenet", (2, 8, 8, 1), r"a map of 4x4 with padding 0 is smaller than the kernel of 5x5; use larger images"),
        ("resnet18", (2, 8, 8, 3), "every mean of instance norm would be of a single value"),
        ("mlp:instance", (2, 8, 8, 3), "every mean of instance norm would be of a single value"),
    ],
)
def test_examples_that_do_not_fit(name, shape, message):
    with pytest.raises(InputError, match=message):
        shapes(models.get(name, num_classes=10), shape)


def test_a_subclass_without_a_body_says_so():
    with pytest.raises(NotImplementedError, match="Classifier does not define body"):
        shapes(models.classifier.Classifier(3), DIGITS)


def test_call_is_the_one_that_methods_rely_on():
    for name in models.names():
        parameters = inspect.signature(type(models.get(name, num_classes=2)).__call__).parameters
        assert list(parameters) == ["self", "x", "train", "features"]
