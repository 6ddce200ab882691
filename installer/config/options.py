"""The settings as options of the command line, under the names that they have everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from installer.config.kinds import SettingError
from installer.config.settings import Settings, declarations

if TYPE_CHECKING:
    from installer.config.declaration import Setting

_Command = Callable[..., None]


class _Value(click.ParamType[object]):
    """A setting's parser, as click wants it."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.metavar
        self._parse = setting.kind.parse_text

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


def takes_settings(command: _Command) -> _Command:
    """Give a command all the settings as options; it gets them as one `Settings`, before its own."""
    names = [each.name for each in declarations()]

    def with_settings(**values: Any) -> None:
        command(Settings(**{name: values.pop(name) for name in names}), **values)

    with_settings.__doc__ = command.__doc__
    with_settings.__name__ = command.__name__
    return with_options(with_settings, names)


def with_options(command: _Command, names: Collection[str], docs: Mapping[str, str] = MappingProxyType({})) -> _Command:
    """Give a command some of the settings as options, under the names that they have everywhere.

    `docs` has the help of those that mean something else to this command than to the agent.
    """
    options = command
    for each in reversed([each for each in declarations() if each.name in names]):
        options = click.option(
            each.flag,
            each.name,
            cls=_Option,
            type=_Value(each),
            default=each.default_text,
            envvar=each.variable,
            show_envvar=True,
            show_default=bool(each.default_text) and not each.shown_default,
            metavar=each.metavar,
            help=docs.get(each.name, each.doc).replace("`", ""),
        )(options)
    return options
