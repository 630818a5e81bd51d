"""Packaging, read from settings.ini so that nbdev, pip and course.py share one source."""
from configparser import ConfigParser
from pathlib import Path
import shlex

from setuptools import setup

HERE = Path(__file__).resolve().parent
parser = ConfigParser(delimiters=["="])
parser.read(HERE / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
lib = cfg["lib_name"]
extras = {
    key.removesuffix("_requirements"): shlex.split(value)
    for key, value in cfg.items()
    if key.endswith("_requirements")
}

setup(
    name=lib,
    version=cfg["version"],
    description=cfg["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    packages=[lib, f"{lib}.data_samples"],
    package_dir={lib: lib, f"{lib}.data_samples": "data_samples"},
    package_data={f"{lib}.data_samples": ["*", "weights/*", "databases/**/*"]},
    python_requires=f">={cfg['min_python']},<{cfg['max_python']}",
    install_requires=shlex.split(cfg["requirements"]),
    extras_require=extras,
    entry_points={
        "console_scripts": [cfg["console_scripts"]],
        "nbdev": [f"{lib}={lib}._modidx:d"],
    },
)
