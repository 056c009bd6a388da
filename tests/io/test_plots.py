"""The pictures hold the very pixels, in the right places, and leave a user's matplotlib alone."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from kipjax.checks import InputError
from kipjax.io import plots

NAMES = [f"class {i}" for i in range(10)]


@pytest.fixture(scope="module")
def digits():
    """Ten images of each digit, class by class: [100, 8, 8] and [100]."""
    data = load_digits()
    index = np.concatenate([np.flatnonzero(data.target == c)[:10] for c in range(10)])
    return np.round(data.images[index] / 16 * 255).astype(np.uint8), data.target[index]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def places(picture, image):
    """Rows and columns where an image, blown up by a whole factor, stands in a picture."""
    image = np.broadcast_to(image if image.ndim == 3 else image[..., None], (*image.shape[:2], 3))
    for scale in range(15, 0, -1):
        big = image.repeat(scale, 0).repeat(scale, 1)
        windows = np.argwhere((picture[: -len(big) + 1, : -big.shape[1] + 1] == big[0, 0]).all(-1))
        found = [(y, x) for y, x in windows if np.array_equal(picture[y : y + len(big), x : x + big.shape[1]], big)]
        if found:
            return found
    return []


def color(m, h=6, w=5, seed=0):
    return np.random.default_rng(seed).integers(0, 250, (m, h, w, 3)).astype(np.uint8)


def test_each_class_has_its_row_and_every_pixel_is_crisp(tmp_path):
    images, labels = color(9), np.array([1, 0, 1, 0, 2, 2, 0, 1, 2])
    plots.image_grid(tmp_path / "grid.png", images, labels, class_names=["a", "b", "c"])
    picture = pixels(tmp_path / "grid.png")
    at = [places(picture, image) for image in images]
    assert all(len(found) == 1 for found in at)
    rows, columns = np.array(at)[:, 0].T
    for c, members in enumerate(([1, 3, 6], [0, 2, 7], [4, 5, 8])):
        assert set(rows[members]) == {sorted(set(rows))[c]}
        assert list(columns[members]) == sorted(set(columns))
    assert (picture[:, : columns.min() - 8] < 120).any()  # the names stand left of the images


def test_single_images_stand_in_several_columns_of_classes(tmp_path):
    images = color(10, 28, 28)
    plots.image_grid(tmp_path / "grid.png", images, np.arange(10), class_names=NAMES)
    at = [places(pixels(tmp_path / "grid.png"), image)[0][::-1] for image in images]
    columns, rows = np.array(at).T
    assert list(zip(columns, rows)) == sorted(zip(columns, rows))  # down, then right
    assert len(set(columns)) == 3 and len(set(rows)) == 4


def test_grey_images_with_and_without_a_channel_axis_give_the_same_picture(tmp_path, digits):
    images, labels = digits
    plots.image_grid(tmp_path / "a.png", images, labels)
    plots.image_grid(tmp_path / "b.png", images[..., None], labels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    height, width = pixels(tmp_path / "a.png").shape[:2]
    assert 600 < height < 1000 and 600 < width < 1000  # 8 x 8 digits are blown up to a size one can see


@pytest.mark.parametrize("m, side", [(10, 8), (10, 28), (100, 32), (20, 64), (600, 28), (2000, 16)])
def test_sizes_are_sensible(tmp_path, m, side):
    labels = np.arange(m) % 10
    plots.image_grid(tmp_path / "grid.png", color(m, side, side), labels, class_names=NAMES)
    height, width = pixels(tmp_path / "grid.png").shape[:2]
    assert 250 < width <= 1700 and 250 < height < 4500
    assert height < 2.5 * width and width < 4 * height


def test_many_images_of_a_class_wrap_into_even_rows(tmp_path):
    images = color(40, 20, 20)
    plots.image_grid(tmp_path / "grid.png", images, np.zeros(40, int))
    picture = pixels(tmp_path / "grid.png")
    at = [places(picture, images[i])[0] for i in (0, 13, 14, 27, 28, 39)]
    assert at[0][0] == at[1][0] < at[2][0] == at[3][0] < at[4][0] == at[5][0]
    assert at[0][1] == at[2][1] == at[4][1] and at[1][1] == at[3][1]  # 14, 14 and 12, not 18, 18 and 4


def test_at_most_the_given_number_of_a_class_is_shown(tmp_path):
    images = color(5)
    plots.image_grid(tmp_path / "grid.png", images, np.zeros(5, int), max_per_class=3)
    picture = pixels(tmp_path / "grid.png")
    assert [len(places(picture, image)) for image in images] == [1, 1, 1, 0, 0]


def test_without_labels_the_images_fill_a_square(tmp_path):
    images = color(9)
    plots.image_grid(tmp_path / "grid.png", images)
    picture = pixels(tmp_path / "grid.png")
    rows = [places(picture, image)[0][0] for image in images]
    assert rows == sorted(rows) and len(set(rows)) == 3


def test_two_classes_of_one_name_stay_two(tmp_path):
    images = color(2)
    plots.image_grid(tmp_path / "grid.png", images, np.array([0, 1]), class_names=["same", "same"])
    picture = pixels(tmp_path / "grid.png")
    assert [len(places(picture, image)) for image in images] == [1, 1]


def test_names_that_look_like_formulas_are_text(tmp_path):
    plots.image_grid(tmp_path / "grid.png", color(2), np.array([0, 1]), class_names=["$x_", "a$b$c"])
    plots.label_plot(tmp_path / "labels.png", np.eye(2), class_names=["$x_", "a$b$c"])


def test_label_plot_shows_means_and_each_image_when_they_are_few(tmp_path):
    y = np.eye(10)[np.repeat(np.arange(10), 3)] - 0.1
    plots.label_plot(tmp_path / "few.png", y, np.repeat(np.arange(10), 3), class_names=NAMES)
    plots.label_plot(tmp_path / "one.png", y[::3], class_names=NAMES)
    plots.label_plot(tmp_path / "many.png", np.tile(y, (10, 1)), class_names=NAMES)
    widths = [pixels(tmp_path / name).shape[1] for name in ("few.png", "one.png", "many.png")]
    assert widths[0] > 1.5 * widths[1] and widths[1] == widths[2]


def test_label_plot_groups_by_class_of_origin_and_not_by_label(tmp_path, monkeypatch):
    maps = plots._heat_maps
    y = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    plots.label_plot(tmp_path / "a.png", y, np.array([0, 1, 1]))
    plots.label_plot(tmp_path / "b.png", y)
    titles = []
    monkeypatch.setattr(plots, "_heat_maps", lambda panels, names: titles.append(panels[0][0]) or maps(panels, names))
    plots.label_plot(tmp_path / "a.png", y, np.array([0, 1, 1]))
    plots.label_plot(tmp_path / "b.png", y)
    assert titles == ["mean label by class of origin", "mean label by largest entry"]
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_label_plot_of_zeros_and_of_a_hundred_classes(tmp_path):
    plots.label_plot(tmp_path / "zero.png", np.zeros((3, 3)))
    plots.label_plot(tmp_path / "hundred.png", np.eye(100), np.arange(100))
    height, width = pixels(tmp_path / "hundred.png").shape[:2]
    assert 800 < height < 1500 and 800 < width < 1500


@pytest.mark.parametrize(
    "images, labels, names, words",
    [
        (color(2).astype(np.float32), None, None, "images has dtype float32; expected uint8"),
        (color(2)[..., :2], None, None, r"images has shape \(2, 6, 5, 2\)"),
        (color(2).reshape(2, -1), None, None, r"images has shape \(2, 90\)"),
        (color(2)[:0], None, None, r"images has shape \(0, 6, 5, 3\)"),
        (color(2), [0], None, r"labels has shape \(1,\) for 2 images"),
        (color(2), [0, 3], ["a", "b"], "labels spans 0..3"),
        (color(2), [-1, 0], None, "labels spans -1..0"),
        (color(2), [0.0, 1.0], None, "labels has dtype float64"),
    ],
)
def test_image_grid_says_what_does_not_fit(tmp_path, images, labels, names, words):
    with pytest.raises(InputError, match=words):
        plots.image_grid(tmp_path / "grid.png", images, labels, class_names=names)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "y, labels, names, words",
    [
        (np.zeros(3), None, None, r"y has shape \(3,\)"),
        (np.zeros((0, 3)), None, None, r"y has shape \(0, 3\)"),
        (np.full((2, 2), np.nan), None, None, "y has NaN"),
        (np.eye(2), [0], None, r"labels has shape \(1,\)"),
        (np.eye(2), [0, 2], None, "labels spans 0..2"),
        (np.eye(2), None, ["a"], "class_names has 1 entries for 2 classes"),
    ],
)
def test_label_plot_says_what_does_not_fit(tmp_path, y, labels, names, words):
    with pytest.raises(InputError, match=words):
        plots.label_plot(tmp_path / "labels.png", y, labels, class_names=names)
    assert os.listdir(tmp_path) == []


def test_an_unusable_path_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"plots.image_grid: cannot write .*its folder does not exist"):
        plots.image_grid(tmp_path / "no" / "grid.png", color(2))


def test_pyplot_is_never_imported_and_importing_the_package_is_cheap(tmp_path):
    code = f"""
import sys
import kipjax.io
print([name for name in ("matplotlib", "orbax", "rich") if name in sys.modules])
import numpy as np
kipjax.io.plots.label_plot({str(tmp_path / "labels.png")!r}, np.eye(2))
kipjax.io.plots.image_grid({str(tmp_path / "grid.png")!r}, np.zeros((1, 4, 4), np.uint8), [0])
print("matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse\n"
