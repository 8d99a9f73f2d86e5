"""The servers that stages ask: one at a time, on the tuned and on the base model."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from llmkit.project import Project


class Servers:
    """Our server on the tuned and on the base model; each is started when first asked for."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._running: dict[str, Any] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def close(self) -> None:
        """Shut down what runs."""
        self._open.close()
        self._running.clear()

    def tuned(self) -> Any:
        """A ready server of the merged model."""
        recipe = self._project.recipe
        return self._start("tuned", self._project.folder / "merged", recipe.name)

    def base(self) -> Any:
        """A ready server of the base model; the tuned one is shut down to make room."""
        model = self._project.model
        return self._start("base", model.folder, Path(model.name).name)

    def _start(self, side: str, folder: Path, name: str) -> Any:
        from serve.model import open_model
        from serve.process import ServerProcess

        if side not in self._running:
            self.close()
            log = self._project.folder / f"server-{side}.log"
            settings = self._project.recipe.serve
            if side == "base" and settings.chat_template is None:
                # A base need not have a template; it is asked as its tuned model is.
                template = self._project.folder / "merged" / "chat_template.jinja"
                if template.is_file():
                    settings = settings.model_copy(update={"chat_template": template})
            # A stage's own server asks for no key, whatever keys the recipe's server will have,
            # and leaves the adapters to that one.
            settings = settings.model_copy(update={"database": None, "adapters_folder": None})
            process = ServerProcess(open_model(folder, name=name), log, settings)
            with self._project.view.working(f"starting the server on the {side} model"):
                self._running[side] = self._open.enter_context(process)
        return self._running[side]
