"""Shell completion, in the shells themselves."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.runs import SCRIPT
from tests.support.terminals import Terminal, terminal, why_no_terminal

_EVALUATED = 'eval "$(_SMOOTH_ORCHESTRATE_COMPLETE={}_source smooth-orchestrate)"'
_SHELLS = {
    "bash": ("bash --norc", _EVALUATED.format("bash")),
    "zsh": ("zsh -f", f"autoload -Uz compinit; compinit -u -D; {_EVALUATED.format('zsh')}"),
    "fish": ("fish --no-config", "_SMOOTH_ORCHESTRATE_COMPLETE=fish_source smooth-orchestrate | source"),
}


@pytest.mark.timeout(120)
@pytest.mark.skipif(why_no_terminal() is not None, reason=str(why_no_terminal()))
@pytest.mark.parametrize("shell", _SHELLS)
def test_a_shell_loads_the_completion_and_completes_commands_and_options(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{Path(SCRIPT).parent}{os.pathsep}{os.environ['PATH']}"
    home = {"PATH": path, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    (tmp_path / "plan.toml").touch()
    start, load = _SHELLS[shell]
    with terminal(tmp_path, home, 160) as screen:
        screen.type(start)
        screen.type(f"{load}; echo 'loaded'' it'")
        screen.wait_until(lambda seen: "loaded it" in seen)

        for begun, completed in (("rollb", "rollback"), ("deploy --no-rep", "--no-replay"), ("plan.t", "plan.toml")):
            screen.write(f"smooth-orchestrate {begun}")
            screen.wait_for(f"smooth-orchestrate {begun}")
            screen.press("Tab")
            screen.wait_for(completed)
            screen.wait_until(lambda seen: _is_let_go_of(screen, seen))


def _is_let_go_of(screen: Terminal, seen: list[str]) -> bool:
    """Tell whether the line is empty, and otherwise ask once more: a shell may drop a key while it completes."""
    if "smooth-orchestrate" not in [line for line in seen if line][-1]:
        return True
    # A key as any other: C-c is a signal, and takes with it what was typed after it.
    screen.press("C-u")
    return False
