"""One distilled set over several networks."""

import jax
import pytest

from kipjax import checks
from kipjax.evaluation import PROTOCOLS, cross_arch, krr, protocols, train
from tests.evaluation.test_train import QUICK, Linear, task
from tests.reference.networks import Small

FEW = QUICK._replace(steps=20)


def test_the_table_has_a_row_per_set_and_a_column_per_network():
    parts, models = task(), {"linear": Linear(3), "small": Small(3)}
    sets = {name: krr.subset(jax.random.key(i), parts, 6) for i, name in enumerate(("a", "b"))}
    options = {"protocol": FEW, "seeds": 2, "key": jax.random.key(7)}
    results = {name: PROTOCOLS["cross_arch"](some, parts, models, **options) for name, some in sets.items()}
    rows, columns, cells = cross_arch.table(results)
    assert rows == ["a", "b", "random subset, 6"] and columns == ["linear", "small"]
    alone = train.evaluate(sets["b"], parts, Small(3), **options)
    assert cells[1][1] == alone[0].accuracy and cells[1][1].n == 2
    assert results["b"][2:] == [result._replace(model="small") for result in alone]
    # The same random subsets for every network and every set: a linear model from zero tells only subsets apart.
    assert results["a"][1] == results["b"][1] and len(set(results["a"][1].mses)) == 2


def test_it_needs_a_network():
    parts = task()
    with pytest.raises(checks.InputError, match="models is empty; name at least one"):
        cross_arch.evaluate(krr.subset(jax.random.key(0), parts, 6), parts, {})


def test_networks_may_be_given_by_name(monkeypatch):
    """As ``models.get`` writes them: a list, or with another name to be shown."""
    parts, asked = task(), []
    monkeypatch.setattr(
        train, "evaluate", lambda made, task, model, *, name, **options: asked.append((name, model)) or []
    )
    some = krr.subset(jax.random.key(0), parts, 6)
    for given in (["mlp", "mlp:batch"], {"a": "mlp", "b": {"name": "mlp", "norm": "batch"}, "c": Linear(3)}):
        cross_arch.evaluate(some, parts, given)
    assert [name for name, _ in asked] == ["mlp", "mlp:batch", "a", "b", "c"]
    assert [getattr(model, "norm", "") for _, model in asked] == ["none", "batch", "none", "batch", ""]
    for given in (["mlpx"], {"a": "mlpx"}):
        with pytest.raises(checks.InputError, match="name is 'mlpx'; choose one of convnet"):
            cross_arch.evaluate(some, parts, given)
    with pytest.raises(checks.InputError, match="model 'a' is 3; give a flax module, or one of these names: convnet"):
        cross_arch.evaluate(some, parts, {"a": 3})


def test_a_protocol_is_needed():
    parts = task()
    with pytest.raises(checks.InputError, match=r"protocol is None; give a Protocol, or the name of one: .*rcig"):
        cross_arch.evaluate(krr.subset(jax.random.key(0), parts, 6), parts, {"a": Linear(3)}, protocol=None)


def test_networks_by_name_fit_the_task():
    parts = task()
    assert train.build("mlp", parts).num_classes == 3
    wide = parts._replace(x_test=parts.x_test.repeat(32, 1).repeat(32, 2))
    assert [train.build("convnet", some).depth for some in (parts, wide)] == [1, 4]
    assert (train.build("dc_convnet", wide, width=8).width, train.build("convnet", wide, depth=2).depth) == (8, 2)
    assert train.build("mlp", parts, width=8) == train.build("mlp", parts), "the width of ConvNets only"
    assert train.build("resnet18:batch", parts).norm == "batch"
    flat = parts._replace(x_test=parts.x_test.reshape(-1, 4))
    with pytest.raises(checks.InputError, match=r"convnet is for images .* choose another, such as mlp"):
        train.build("convnet", flat)
    with pytest.raises(checks.InputError, match="name is 'resnet'; choose one of convnet"):
        train.build("resnet", parts)
    for name in (
        *cross_arch.ARCHITECTURES,
        *cross_arch.MATCHING,
        *(protocol.model for protocol in protocols.NAMED.values()),
    ):
        assert train.build(name, wide).num_classes == 3


@pytest.mark.parametrize("name", ["rcig", "rfad", "dsa"])
def test_the_papers_network_is_trained_unless_another_is_given(monkeypatch, name):
    asked = []

    def record(name, task, **options):
        asked.append((name, options))
        return Linear(3)

    monkeypatch.setattr(train, "build", record)
    parts, quick = task(), {"epochs": 1} if protocols.NAMED[name].epochs else {"steps": 1}
    protocol = protocols.NAMED[name]._replace(augment=("none", "none"), **quick)
    results = train.evaluate(krr.subset(jax.random.key(0), parts, 6), parts, protocol=protocol, seeds=1, subset_seeds=0)
    paper = {"rcig": ("convnet", {}), "rfad": ("rfad_convnet", {"width": 1024}), "dsa": ("dc_convnet", {})}
    assert asked == [paper[name]] and results[0].model == paper[name][0]
