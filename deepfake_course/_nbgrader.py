"""What nbgrader loads: its configuration for a class folder, and the preprocessor that grades by two processes.

Written by hand. `nbgrader_config.py` of a class folder holds one line that calls `configure`, so that the command line
and the formgrader in JupyterLab do the same.
"""
import json
import os
import sysconfig
import warnings
from pathlib import Path

import alembic
import sqlalchemy.exc
from nbformat import from_dict
from nbgrader.preprocessors import (
    AssignLatePenalties, CheckCellMetadata, LimitOutput, NbGraderPreprocessor, SaveAutoGrades,
)

from . import _grader

# nbgrader 0.9.6 on SQLAlchemy 2.1: harmless
warnings.filterwarnings("ignore", message="Object of type .* not in session", category=sqlalchemy.exc.SAWarning)

CONFIG = """# Read by nbgrader and by `deepfake-course assignments`, in this folder.
from deepfake_course._nbgrader import configure

configure(get_config())
"""


class TwoProcesses(NbGraderPreprocessor):
    """Instead of nbgrader's `Execute`: student code in the sandbox, hidden tests here."""

    def preprocess(self, nb, resources):
        told = resources["nbgrader"]
        unsafe = bool(os.environ.get("DEEPFAKE_COURSE_UNSAFE"))
        name = told["assignment"]
        root = Path(self.config.CourseDirectory.root if "root" in self.config.CourseDirectory else ".")
        source = json.loads((root / "source" / name / f"{name}.ipynb").read_text(encoding="utf-8"))
        plain = _grader.overlay(source, json.loads(json.dumps(nb)))
        report = _grader.recall(plain, name, told["student"], unsafe)
        nb.cells = from_dict(_grader.fill(plain, report)).cells
        return nb, resources


def configure(c) -> None:
    """The course's settings, written into a traitlets configuration."""
    c.CourseDirectory.course_id = "deepfake_course"
    c.ClearSolutions.code_stub = {"python": _grader.STUB}
    c.ClearSolutions.text_stub = "*Your answer here.*"
    c.Autograde.autograde_preprocessors = [TwoProcesses, LimitOutput, SaveAutoGrades, AssignLatePenalties,
                                           CheckCellMetadata]


def api(folder: Path):
    """nbgrader for a class folder, with the configuration that lies in it."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config.loader import PyFileConfigLoader

    # nbgrader starts `alembic` by its bare name, which an environment that is not activated does not find.
    places = [sysconfig.get_path("scripts"), str(Path(alembic.__file__).parents[1] / "bin")]
    path = os.environ.get("PATH", "").split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([*path, *(place for place in places if place not in path)])
    config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    config.CourseDirectory.root = str(folder)
    config.NbGraderAPI.log_level = config.Application.log_level = "ERROR"
    return NbGraderAPI(config=config)
