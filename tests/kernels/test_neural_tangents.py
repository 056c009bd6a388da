"""After `import kipjax` neural_tangents can be imported, without TensorFlow, and jax is as it was."""

import subprocess
import sys
import textwrap

import pytest

from kipjax.kernels import _neural_tangents


def run(code: str) -> str:
    """Runs ``code`` in a fresh interpreter and returns what it printed; warnings are errors there."""
    command = [sys.executable, "-W", "error::DeprecationWarning:neural_tangents", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_jax_is_untouched_and_tensorflow_stays_out():
    run("""
        import sys
        import jax, jax.core, jax.extend.core, jax.interpreters.ad

        def names():
            return {m: set(vars(sys.modules[m])) for m in ("jax.core", "jax.interpreters.ad", "jax.extend.core")}

        before, has_util = names(), hasattr(jax, "util")
        import kipjax
        assert "neural_tangents" not in sys.modules  # importing kipjax must stay cheap
        assert names() == before
        import neural_tangents.stax                  # a submodule first
        assert names() == before
        assert hasattr(jax, "util") == has_util and ("jax.util" in sys.modules) == has_util
        assert "tensorflow" not in sys.modules and "jax.experimental.jax2tf" not in sys.modules
        assert type(neural_tangents.__loader__).__module__ != "kipjax.kernels._neural_tangents"
        assert neural_tangents.__spec__.origin.endswith("__init__.py")
    """)


@pytest.mark.slow
def test_the_parts_of_neural_tangents_that_people_use_run():
    out = run("""
        import kipjax, jax, jax.numpy as jnp
        import neural_tangents as nt
        from neural_tangents import stax

        init, apply, kernel_fn = stax.serial(stax.Dense(64), stax.Relu(), stax.Dense(1))
        x = jax.random.normal(jax.random.key(0), (3, 5))
        _, params = init(jax.random.key(1), x.shape)
        predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, x[:, :1])
        assert predict(x_test=x, get="ntk").shape == (3, 1)
        assert nt.batch(kernel_fn, batch_size=1, device_count=0)(x, x, "ntk").shape == (3, 3)
        assert jnp.allclose(nt.linearize(apply, params)(params, x), apply(params, x), atol=1e-5)
        one = nt.empirical_ntk_fn(apply, implementation=nt.NtkImplementation.JACOBIAN_CONTRACTION)(x, None, params)
        two = nt.empirical_ntk_fn(apply, implementation=nt.NtkImplementation.NTK_VECTOR_PRODUCTS)(x, None, params)
        assert jnp.allclose(one, two, atol=1e-4)
        exact = kernel_fn(x, None, "ntk")
        assert jnp.abs(one - exact).max() < 0.5 * exact.max()  # width 64 is far from infinite
        print("ran")
    """)
    assert out == "ran\n"


def test_imports_from_threads_reloads_and_repeated_installs_are_harmless():
    run("""
        import importlib, sys, threading
        import kipjax, jax.core
        from kipjax.kernels import _neural_tangents

        before, finders = set(vars(jax.core)), list(sys.meta_path)
        _neural_tangents.install()
        importlib.reload(_neural_tangents)
        importlib.reload(kipjax)
        assert sys.meta_path == finders

        errors, start = [], threading.Barrier(4)

        def load(name):
            start.wait()
            try:
                importlib.import_module(name)
            except BaseException as error:
                errors.append(error)

        names = ("neural_tangents", "neural_tangents.stax", "neural_tangents.predict", "neural_tangents")
        threads = [threading.Thread(target=load, args=(name,)) for name in names]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not errors, errors
        importlib.reload(sys.modules["neural_tangents"])
        assert set(vars(jax.core)) == before
        assert sys.modules["neural_tangents"].experimental.__doc__.startswith("Left empty by kipjax")
    """)


def test_a_failed_import_leaves_no_trace():
    run("""
        import sys
        import kipjax, jax.core
        sys.modules["frozendict"] = None  # as if it were not installed
        before = set(vars(jax.core))
        from kipjax.kernels import infinite
        try:
            infinite.fc(1)
        except ImportError as error:
            assert "pip install --no-deps neural-tangents frozendict" in str(error), error
        else:
            raise AssertionError("no error")
        assert set(vars(jax.core)) == before and "jax.util" not in sys.modules
    """)


@pytest.mark.parametrize("name", ["neural_tangents", "frozendict"])
def test_a_missing_package_is_named_with_its_remedy(name, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == "neural_tangents"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"'{name}' is not installed.*pip install --no-deps neural-tangents"):
        _neural_tangents.stax()


def test_importing_kipjax_imports_nothing_heavy():
    out = run("""
        import sys, kipjax
        heavy = ("flax", "optax", "sklearn", "matplotlib", "tensorflow", "neural_tangents")
        print([name for name in heavy if name in sys.modules])
    """)
    assert out == "[]\n"
