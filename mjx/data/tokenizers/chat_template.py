"""Chats as the text that a model was trained on: Hugging Face's chat templates, which are Jinja programs."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mjx.data.tokenizers.folder_config import CONFIG_FILE, FolderConfig, read_json
from mjx.errors import InputError

TEMPLATE_FILE = "chat_template.jinja"
PROCESSOR_FILE = "chat_template.json"


class ChatTemplate:
    """A chat template with the names of the special tokens it may write.

    A template comes with a model's files, from strangers: it runs in Jinja's sandbox and is given text only.
    """

    def __init__(self, source: str, names: Mapping[str, str], origin: str = "the chat template") -> None:
        """Args:
        source: The template's text.
        names: `bos_token`, `eos_token`, ... → the token.
        origin: Where it comes from, for messages.

        Raises:
            InputError: the template is not Jinja.
        """
        import jinja2

        self.source, self.names, self.origin = source, dict(names), origin
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(
                f"{origin} is not a Jinja template: {error.message} (line {error.lineno})."
            ) from error

    @classmethod
    def from_folder(cls, path: str | Path) -> "ChatTemplate | None":
        """The template of a model's folder, None where it has none.

        Looked at are chat_template.jinja, tokenizer_config.json (of a list of named templates, "default")
        and chat_template.json.
        """
        folder = Path(path)
        config = FolderConfig.read(folder)
        if (folder / TEMPLATE_FILE).is_file():
            file = folder / TEMPLATE_FILE
            return cls(file.read_text(encoding="utf-8"), config.names, str(file))
        for file in (folder / CONFIG_FILE, folder / PROCESSOR_FILE):
            source = _default(read_json(file).get("chat_template"), file)
            if source is not None:
                return cls(source, config.names, f"chat_template of {file}")
        return None

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The chat as text, special tokens written out.

        Args:
            messages: Each has a `role` ("system", "user", "assistant") and a `content`: a text, or, where the
                template knows them, parts as `{"type": "image"}` and `{"type": "text", "text": …}`.
            add_generation_prompt: End with what begins the assistant's answer.

        Raises:
            InputError: the template refuses the messages (a role it does not know, a wrong order) or fails.
        """
        if not messages:
            raise InputError(f"{self.origin} needs at least one message.")
        try:
            return self._template.render(
                messages=[
                    {key: value for key, value in message.items() if value is not None}
                    for message in messages
                ],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.names,
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise InputError(f"{self.origin} cannot render these messages: {error}.") from error


def _default(found: object, file: Path) -> str | None:
    if found is None or isinstance(found, str):
        return found
    try:
        templates = {entry["name"]: entry["template"] for entry in found}  # type: ignore[attr-defined]
    except (TypeError, KeyError) as error:
        raise InputError(
            f"chat_template of {file} must be a text or a list of objects with name and template."
        ) from error
    return templates.get("default")


def _environment() -> Any:
    """The environment in which Hugging Face's templates are written to run."""
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks the assistant's words for training masks; the text is the same without."""

        tags = {"generation"}  # noqa: RUF012 (Jinja's protocol)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            # A block of its own, so that `set` inside stays inside.
            return jinja2.nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def strftime_now(format: str) -> str:
        return datetime.datetime.now().strftime(format)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Jinja's own would escape <, > and & for HTML."""
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    return environment
