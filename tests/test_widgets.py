"""What the lesson on widgets cannot show: pictures that are put together from kept parts are the right pictures."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from deepfake_course.widgets import draw_roc_explorer, figure_png, kept

Y = np.arange(30) % 2
SCORE = np.clip(np.random.default_rng(0).normal(0.4 + 0.2 * Y, 0.2), 0, 1)


def blank(size=(6, 3)):
    figure = Figure(figsize=size, dpi=60)
    FigureCanvasAgg(figure)
    return figure


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def saved(figure):
    "Matplotlib's own way to a file, which draws everything, what is animated too."
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=figure.dpi)
    return pixels(file.getvalue())


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.95])
def test_a_picture_of_kept_parts_is_the_whole_figure(threshold):
    "But for what moves under a legend, which covers it."
    figure = blank()
    for first in (0.3, threshold):
        draw_roc_explorer(figure, Y, SCORE, first, cost=3)
        ours = pixels(figure_png(figure))
    apart = np.abs(ours - saved(figure)).max(2) > 0
    for ax in figure.axes:
        place = ax.get_legend().get_window_extent()
        top, bottom = (int(figure.bbox.height - at) for at in (place.y1, place.y0))
        apart[top - 1 : bottom + 2, int(place.x0) - 1 : int(place.x1) + 2] = False
    assert ours.std() > 10 and apart.mean() < 0.002  # an antialiased edge here and there


def test_what_moves_is_drawn_once_and_leaves_no_trace():
    figure = blank()
    draw_roc_explorer(figure, Y, SCORE, 0.3)
    one = figure_png(figure)
    draw_roc_explorer(figure, Y, SCORE, 0.8, cost=9)
    assert figure_png(figure) != one
    draw_roc_explorer(figure, Y, SCORE, 0.3)
    assert figure_png(figure) == one == figure_png(figure)


def test_another_key_another_size_and_another_content_are_drawn_anew():
    figure = blank()
    draw_roc_explorer(figure, Y, SCORE, 0.3)
    first = figure_png(figure)
    draw_roc_explorer(figure, Y, 1 - SCORE, 0.3)
    assert figure_png(figure) != first
    draw_roc_explorer(figure, Y, SCORE, 0.3)
    assert figure_png(figure) == first
    figure.set_size_inches(5, 3)
    assert pixels(figure_png(figure)).shape == (180, 300, 3)
    figure.set_dpi(80)
    assert pixels(figure_png(figure)).shape == (240, 400, 3)
    figure.clear()
    figure.subplots().plot([0, 1], animated=True)
    assert (pixels(figure_png(figure)) != saved(figure)).mean() < 0.002


def test_without_moving_parts_everything_is_drawn_each_time():
    figure = blank()
    ax = kept(figure, "one", lambda figure: figure.subplots())
    empty = figure_png(figure)
    ax.plot([0, 1])
    assert figure_png(figure) != empty and (pixels(figure_png(figure)) == saved(figure)).all()
    ax.set_title("new")
    ax.lines[0].set_animated(True)
    once = figure_png(figure)
    ax.lines[0].set_ydata([1, 0])
    assert figure_png(figure) != once


def test_the_frame_is_drawn_once(monkeypatch):
    figure, drawn = blank(), []
    monkeypatch.setattr(figure, "draw", lambda renderer: drawn.append(1) or Figure.draw(figure, renderer))
    for threshold in np.linspace(0.1, 0.9, 5):
        draw_roc_explorer(figure, Y, SCORE, threshold)
        figure_png(figure)
    assert len(drawn) <= 2  # `tight_layout` may draw as well
