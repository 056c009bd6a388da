"""Networks by name."""

import pytest

from kipjax import models
from kipjax.checks import InputError
from kipjax.models.classic import MLP
from kipjax.models.convnet import ConvNet
from kipjax.models.resnet import CifarResNet, ResNet18, WideResNet


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"name": "convnet"}, ConvNet(10)),
        ({"name": "convnet", "depth": 4, "activation": "softplus"}, ConvNet(10, depth=4, activation="softplus")),
        (
            {"name": "dc_convnet", "width": 32},
            ConvNet(10, norm="instance", initial="torch", momentum=0.9, width=32, doubling=False),
        ),
        ({"name": "dc_convnet:none"}, ConvNet(10, initial="torch", momentum=0.9, doubling=False)),
        ({"name": "rfad_convnet"}, ConvNet(10, initial="rfad", width=256, doubling=False, pad_grey=False)),
        (
            {"name": "kip_convnet"},
            ConvNet(10, initial="kip", doubling=False, pad_grey=False, stem=True, norm_placement="before_conv"),
        ),
        ({"name": "mlp", "width": 1024}, MLP(10, width=1024)),
        ({"name": "wide_resnet"}, WideResNet(10, norm="batch", initial="he", depth=16, widen=4)),
        ({"name": "resnet32"}, CifarResNet(10, norm="batch", initial="he_out", depth=32, width=16)),
        ({"name": "resnet18:batch"}, ResNet18(10, norm="batch")),
        ({"name": "resnet18_ap", "norm": "batch"}, ResNet18(10, norm="batch", downsample="pool")),
    ],
    ids=lambda value: str(value.get("name")) if isinstance(value, dict) else "",
)
def test_names_mean_the_classes(config, model):
    assert models.get(**config, num_classes=10) == model


def test_names():
    listed = (
        "convnet dc_convnet kip_convnet rfad_convnet mlp lenet alexnet alex_cifar vgg11 resnet18 resnet18_ap "
        "wide_resnet resnet32 gtn gtn_larger text_convnet bi_rnn bi_lstm"
    )
    assert sorted(models.names()) == sorted(listed.split())
    for name in models.names():
        assert models.get(name, num_classes=4).num_classes == 4


def test_the_package_offers_what_it_lists():
    for name in models.__all__:
        assert getattr(models, name) is not None
    with pytest.raises(AttributeError, match=r"'kipjax.models' has no attribute 'transformer'"):
        _ = models.transformer


@pytest.mark.parametrize("name", ["", "resnet", "ConvNet", "convnet3", ":batch", "convnet ", None, 3])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(InputError, match=r"models.get: name is .*; choose one of convnet, dc_convnet, .*wide_resnet"):
        models.get(name, num_classes=10)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "mlp", "pool": "avg"}, "mlp has no option 'pool'; its options are norm, activation.*depth, width"),
        ({"name": "lenet", "a": 1, "b": 2}, "lenet has no option 'a', 'b'; its options are norm"),
        ({"name": "convnet", "parent": None}, "convnet has no option 'parent'"),
        ({"name": "resnet18:batch", "norm": "group"}, "resnet18:batch names norm, and so does norm='group'"),
        ({"name": "resnet18:weight"}, "ResNet18: norm is 'weight'; choose one of none, batch, instance, layer, group"),
        ({"name": "resnet18:"}, "ResNet18: norm is ''"),
        ({"name": "convnet", "activation": "elu"}, "ConvNet: activation is 'elu'; choose one of relu"),
        ({"name": "convnet", "sharpness": 0}, "ConvNet: sharpness is 0"),
        ({"name": "convnet", "initial": "ones"}, "ConvNet: initial is 'ones'; choose one of lecun, torch"),
        ({"name": "convnet", "momentum": 2.0}, "ConvNet: momentum is 2.0"),
        ({"name": "convnet", "groups": 0}, "ConvNet: groups is 0"),
        ({"name": "convnet", "lowering": "fft"}, "ConvNet: lowering is 'fft'"),
        ({"name": "convnet", "depth": 0}, "ConvNet: depth is 0"),
        ({"name": "convnet", "width": 1.5}, "ConvNet: width is 1.5"),
        ({"name": "convnet", "pool": "sum"}, "ConvNet: pool is 'sum'; choose one of avg, max, none"),
        (
            {"name": "convnet", "norm_placement": "conv"},
            "norm_placement is 'conv'; choose one of after_conv, before_conv",
        ),
        ({"name": "mlp", "depth": -1}, "MLP: depth is -1"),
        ({"name": "mlp", "width": 0}, "MLP: width is 0"),
        ({"name": "vgg11", "width": 0}, "VGG11: width is 0"),
        ({"name": "resnet18", "width": 0}, "ResNet18: width is 0"),
        ({"name": "resnet18", "downsample": "max"}, "downsample is 'max'; choose one of stride, pool"),
        ({"name": "wide_resnet", "depth": 18}, r"WideResNet: depth is 18; it must be 6 n \+ 4"),
        ({"name": "wide_resnet", "depth": 4}, "WideResNet: depth is 4"),
        ({"name": "resnet32", "depth": 30}, r"CifarResNet: depth is 30; it must be 6 n \+ 2"),
        ({"name": "convnet", "classifier": "euclid"}, "classifier is 'euclid'; choose one of linear, cosine"),
        ({"name": "gtn", "classifier": "cosine"}, "classifier is 'cosine'; choose one of linear"),
        ({"name": "wide_resnet", "widen": 0}, "WideResNet: widen is 0"),
    ],
    ids=str,
)
def test_wrong_options_are_named(config, message):
    with pytest.raises(InputError, match=message):
        models.get(**config, num_classes=10)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, None])
def test_the_number_of_classes_is_a_count(num_classes):
    with pytest.raises(InputError, match="ConvNet: num_classes is"):
        models.get("convnet", num_classes=num_classes)
