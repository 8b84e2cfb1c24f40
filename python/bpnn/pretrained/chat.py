"""Chat templates: Jinja programs that come with a model and lay out a conversation as the text it was trained on.

They come from outside, so they run in jinja2's immutable sandbox: no attributes beginning with an underscore, nothing changed.
"""
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

Message = Mapping[str, Any]


def render(template: str, messages: Sequence[Message], source: str = "chat_template", **variables: Any) -> str:
    """The text of a conversation. `variables`: what else the template sees, such as `bos_token` and `add_generation_prompt`.

    Raises `ImportError` where jinja2 is missing; `ValueError` naming `source` where the template is damaged, refuses the
    conversation or asks for what the sandbox forbids.
    """
    try:
        import jinja2
    except ImportError:
        raise ImportError(f'{source}: chat templates need the package jinja2: pip install "bpnn[hf]"') from None
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message:
            raise TypeError(f"conversation: message {i}: expected {{'role': …, 'content': …}}, got {message!r}")
    try:
        return str(_compiled(template).render(messages=list(messages), **variables))
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{source}: the template is damaged in line {error.lineno}: {error.message}") from None
    except jinja2.TemplateError as error:  # its own raise_exception, undefined names and the sandbox's
        raise ValueError(f"{source}: {error}") from None


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    import json
    from datetime import datetime

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %} … {% endgeneration %}`, which marks what the model says, leaves its inside as it is."""

        tags = {"generation"}  # noqa: RUF012  jinja2's way

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **arguments: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **arguments)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)
