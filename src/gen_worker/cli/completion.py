"""`cozyctl completion`: a script that teaches a shell the commands, options, functions and error codes."""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from gen_worker.cli.output import Verb, print_line

SHELLS = ("bash", "zsh", "fish")
_WHERE = {
    "bash": 'add to ~/.bashrc:  eval "$(cozyctl completion bash)"',
    "zsh": 'add to ~/.zshrc, after compinit:  eval "$(cozyctl completion zsh)"',
    "fish": "run once:  cozyctl completion fish > ~/.config/fish/completions/cozyctl.fish",
}


@click.command("completion", cls=Verb)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell: str | None) -> int:
    """Print the script that lets SHELL complete cozyctl's words by Tab.

    bash: add `eval "$(cozyctl completion bash)"` to ~/.bashrc (bash 4.4 or newer). zsh: the same with `zsh` in ~/.zshrc, after compinit.
    fish: `cozyctl completion fish > ~/.config/fish/completions/cozyctl.fish`.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in SHELLS else None
    if kind is None:
        raise click.UsageError(f"name the shell: cozyctl completion {'|'.join(SHELLS)}")
    from gen_worker.cli.verbs import group

    print_line(f"# {_WHERE[name]}\n{_source(kind, group)}")
    return 0


def _source(kind: type["click.shell_completion.ShellComplete"], group: click.Command) -> str:
    completer = kind(group, {}, "cozyctl", "_COZYCTL_COMPLETE")
    # Skips click's own check of bash's version, which would start a bash.
    return completer.source_template % completer.source_vars()
