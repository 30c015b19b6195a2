"""`init` and `completion`: the first steps."""

from pathlib import Path

import click

from flowcraft.core.errors import UsageError

_START = ("settings.yaml", "hello.yaml")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
def init(folder: Path) -> None:
    """Write a commented settings.yaml and a first pipeline, hello.yaml, into FOLDER; never overwrites.

    The JSON Schemas that both name in their first line, for editors, go into FOLDER/schemas.
    """
    from flowcraft.core.resources import schema_text, start_text

    texts = {name: start_text(name) for name in _START}
    texts |= {f"schemas/{name}.schema.json": schema_text(name) for name in ("pipeline", "settings")}
    taken = [name for name in texts if (folder / name).exists()]
    if taken:
        raise UsageError(
            f"{folder / taken[0]} is already there", hint="choose another folder: flowcraft init my_project"
        )
    try:
        (folder / "schemas").mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            click.echo(f"wrote {folder / name}")
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from None
    click.echo(f"next: flowcraft run {folder / 'hello.yaml'} -i request='a todo app'")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash: echo 'eval "$(flowcraft completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(flowcraft completion zsh)"' >> ~/.zshrc
    fish: flowcraft completion fish > ~/.config/fish/completions/flowcraft.fish
    """
    from click.shell_completion import get_completion_class

    from flowcraft.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, "click knows these three shells"
    click.echo(found(cli, {}, "flowcraft", "_FLOWCRAFT_COMPLETE").source())
