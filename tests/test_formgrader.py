"""nbgrader in JupyterLab, as a teacher and as a student meet it: the formgrader takes a mark, Validate teaches."""

import json
import os
import sys

import pytest
from conftest import ROOT
from test_browser import Server, browser, watched  # noqa: F401  (browser is a fixture)
from test_classroom import NAME, UNSAFE, grades, put, released, run, solved

from deepfake_course import _classroom, _grader
from deepfake_course._grader import meta, text


class ClassServer(Server):
    "JupyterLab started in a class folder, with the packages that this process sees."

    def __init__(self, home, folder):
        super().__init__(home)
        self.folder = folder

    def command(self, room):
        start = ("import os, sys; os.chdir(sys.argv[1]); os.environ['PYTHONPATH'] = sys.argv[2]; "
                 "os.execv(sys.executable, [sys.executable, *sys.argv[3:]])")  # fmt: skip
        packages = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        return [sys.executable, "-c", start, str(self.folder), packages, *super().command(room)[1:]]


def student(nb, who, change=None):
    for cell in nb["cells"]:
        if text(cell).startswith("STUDENT"):
            cell["source"] = f'STUDENT = "{who}"'
        if change and meta(cell).get("grade_id") == change[0]:
            cell["source"] = change[1]
    return nb


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):  # noqa: F811
    "(page, server, class folder) with one graded submission whose words wait for a mark."
    pytest.importorskip("nbgrader", reason="nbgrader is not installed")
    folder, place = tmp_path_factory.mktemp("lab") / "my class", tmp_path_factory.mktemp("in")
    _classroom.release(folder, [NAME])
    put(place, f"ana/{NAME}.ipynb", solved(released(folder), NAME))
    assert run("collect", NAME, place, "--class", folder)[0] == 0
    assert run("grade", "--class", folder, *["--unsafe"] * UNSAFE)[0] == 0
    wrong = next((gap, code) for gap, title, code in _grader.read_mutants(_classroom.wrong(NAME)) if title == "hard labels")
    put(folder, f"mine/{NAME}.ipynb", student(solved(released(folder), NAME), "bo", wrong))
    server = ClassServer(tmp_path_factory.mktemp("server"), folder)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        server.start("lab")
        yield context.new_page(), server, folder
    finally:
        context.close()
        server.stop()


def test_the_formgrader_takes_a_mark(lab):
    page, server, folder = lab
    with watched(page, "formgrader"):
        page.goto(f"{server.base}/lab?token={server.token}&reset")
        page.wait_for_function("() => !!window.jupyterapp", timeout=60_000)
        page.evaluate("() => { jupyterapp.restored.then(() => { jupyterapp.commands.execute('nbgrader:open-formgrader') }) }")
        frame = page.frame_locator("iframe")
        frame.get_by_text(NAME, exact=True).first.wait_for(timeout=60_000)
        frame.get_by_text("Manual Grading").first.click()
        for link in (NAME, NAME):
            frame.get_by_role("link", name=link, exact=True).first.click()
        frame.get_by_role("link", name="Submission #1").first.click()
        score = frame.locator("input.score.needs_manual_grade")  # marked so once the page has loaded its grades
        score.wait_for(timeout=60_000)
        assert score.count() == 1 and score.input_value() == "", "nothing was given yet"
        with page.expect_response(lambda reply: "/api/grade/" in reply.url and reply.request.method == "PUT") as saved:
            score.fill("2.5")
            score.press("Tab")
        assert saved.value.ok
    assert run("export", "--class", folder)[0] == 0
    (row,) = grades(folder)
    assert (row["points"], row["code"], row["words"], row["status"]) == ("11.5", "9", "2.5", "graded")


def test_validate_in_lab_teaches(lab):
    page, server, folder = lab
    with watched(page, "validate"):
        page.goto(f"{server.base}/lab/tree/mine/{NAME}.ipynb?token={server.token}&reset")
        page.wait_for_function("() => !!window.jupyterapp", timeout=60_000)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.get_by_role("button", name="Validate").first.click()
        dialog = page.locator(".jp-Dialog")
        dialog.get_by_text("hard labels").first.wait_for(timeout=120_000)
    assert json.loads((folder / "mine" / f"{NAME}.ipynb").read_text())["cells"], "the notebook is still whole"
