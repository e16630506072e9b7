"""The viewer's own files: modules that find each other by name, and nothing from outside."""

import json
import re
from pathlib import Path

import pytest

import vitral.deploy.viewer

STATIC = Path(vitral.deploy.viewer.__file__).parent / "static"
MODULES = sorted(STATIC.glob("*.js"))
PAGE = (STATIC / "index.html").read_text(encoding="utf-8")


def exported(module):
    text = module.read_text(encoding="utf-8")
    return set(re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", text, re.MULTILINE))


def test_the_import_map_names_every_module():
    found = re.search(r'<script type="importmap">(.*?)</script>', PAGE, re.DOTALL)
    named = json.loads(found[1])["imports"]
    assert named == {f"viewer/{module.name}": f"./static/{module.name}" for module in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_what_a_module_imports_is_exported(module):
    text = module.read_text(encoding="utf-8")
    imports = re.findall(r'^import \{([^}]*)\} from "viewer/([\w.]+)";', text, re.MULTILINE)
    assert len(imports) == len(re.findall(r"^import ", text, re.MULTILINE)), "every import has one form"
    for names, source in imports:
        wanted = {name.strip() for name in names.split(",") if name.strip()}
        assert wanted <= exported(STATIC / source), source


@pytest.mark.parametrize(
    "mode", re.findall(r"^  (\w+): \[", (STATIC / "main.js").read_text(encoding="utf-8"), re.MULTILINE)
)
def test_every_mode_has_a_pane(mode):
    assert "mount" in exported(STATIC / f"{mode}.js")


@pytest.mark.parametrize("file", [*MODULES, STATIC / "viewer.css", STATIC / "index.html"], ids=lambda file: file.name)
def test_nothing_comes_from_outside(file):
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/", "")  # names of formats, which nothing fetches
    if file.suffix != ".html":
        text = re.sub(r"(?<!:)//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)  # comments may cite
    assert not re.search(r"https?:|@import|url\((?!['\"]?data:)", text)


@pytest.mark.parametrize("name", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "alert("])
def test_text_is_never_read_as_code(name):
    assert [module.name for module in MODULES if name in module.read_text(encoding="utf-8")] == []
