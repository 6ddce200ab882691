"""The command line of the node agent, `install-cni`."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from installer import settings as declared
from installer.release import release
from installer.settings import SettingError, Settings

_Command = Callable[..., None]


class _Value(click.ParamType[object]):
    """A setting's parser, as click wants it."""

    def __init__(self, declaration: declared.Declaration) -> None:
        self.name = declaration.value
        self._parse = declaration.parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value  # click converts the default twice
        try:
            return self._parse(value)
        except SettingError as error:
            self.fail(str(error), param, ctx)


class _Option(click.Option):
    """An option whose environment variable counts also when it is empty: empty is a value for some settings."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:  # noqa: ARG002 - click's signature
        return os.environ.get(str(self.envvar))


def _takes_settings(command: _Command) -> _Command:
    """Give a command all the settings as options; it gets them as one `Settings`."""

    def with_settings(**values: Any) -> None:
        command(Settings(**values))

    with_settings.__doc__ = command.__doc__
    with_settings.__name__ = command.__name__
    options = with_settings
    for each in reversed(declared.declarations()):
        options = click.option(
            each.flag,
            each.name,
            cls=_Option,
            type=_Value(each),
            default=each.default,
            envvar=each.variable,
            show_envvar=True,
            show_default=bool(each.default) and each.name != "node_name",
            metavar=each.value,
            help=each.doc,
        )(options)
    return options


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(release(), prog_name="install-cni")
def main() -> None:
    """Put the Istio CNI plugin on this node, keep it there, and redirect meshed pods' traffic to their sidecars.

    Each option of a command may be given as an environment variable instead: --cni-bin-dir is CNI_BIN_DIR.
    """


@main.command()
@_takes_settings
def run(settings: Settings) -> None:
    """Run the node agent in the foreground until it is told to stop (SIGTERM, SIGINT).

    What it has installed stays when it stops, so that it can be upgraded; `install-cni uninstall` takes it out.
    """
    from installer import agent  # noqa: PLC0415 - kopf takes half a second to import, --help need not wait for it

    agent.run(settings)


@main.command()
@_takes_settings
def uninstall(settings: Settings) -> None:
    """Take all out of this node that `run` has put there, the conflist entry first, the plugin file last.

    Stop the agent before, or it repairs what is taken out. Says on a line each what was done; may be run again; the
    exit status is 1 if something could not be taken out.
    """
    from installer.uninstall import uninstall as take_out  # noqa: PLC0415

    failed = False
    for step in take_out(settings):
        click.echo(step.text, err=step.failed)
        failed |= step.failed
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
