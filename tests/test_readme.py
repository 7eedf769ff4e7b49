"""The README's words are the tests': what it shows runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_training_script_of_the_readme_runs_and_learns(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 20 <= len(script.strip().splitlines()) <= 32
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    loss = float(re.fullmatch(r"loss after 50 steps: ([\d.]+)\n", done.stdout).group(1))
    assert loss < 4.0, "it started at log 256 = 5.5"


def test_every_command_of_the_readme_is_one_that_mjx_has():
    from mjx.arguments import parser

    commands = re.findall(r"^(?:srun )?mjx (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        words = re.findall(r'"[^"]*"|\S+', command)
        parser().parse_args([word.strip('"') for word in words])


def test_every_recipe_of_the_readme_fits_the_mesh_that_is_shown_with_it(capsys):
    from mjx.cli import main

    shown = re.findall(r"^mjx (?:train|explain) (configs/\S+)(.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(shown) >= 3
    for recipe, rest in shown:
        if "\ninit_from:" in (ROOT / recipe).read_text(encoding="utf-8"):
            continue  # of a model that is downloaded first
        overrides = [word for word in rest.split() if "=" in word and not word.startswith("-")]
        main(["explain", str(ROOT / recipe), *overrides])
        assert "Parameters" in capsys.readouterr().out
