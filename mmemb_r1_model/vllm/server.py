"""Where a vLLM server is and how it is asked: its settings, and what users call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from mmeb_harness.adapter.addresses import check_address
from mmemb_r1_model.disk.errors import OptionError


@dataclass(frozen=True)
class Server:
    """A vLLM server that serves our checkpoint, or adapters of it.

    Attributes:
        base_url: up to and with /v1.
        model: the server's name for what is asked. Of rollouts: the name under which the adapters are loaded, another
            one than the checkpoint's; of rationales `None`: the only model it has.
        api_key_env: name of the environment variable with the key; the key itself is stored nowhere.
        timeout_seconds: for one attempt at one prompt; a busy server lets requests wait.
        max_retries: further attempts where one may help.
        max_parallel: prompts under way at once, of each process.
        adapter_folder: of rollouts: in which adapter/ is written, under the same path for the server; "": the run's
            folder.
        reload_every: of rollouts: steps after which the server gets new weights.
    """

    base_url: str = ""
    model: str | None = "student"
    api_key_env: str | None = None
    timeout_seconds: float = 600.0
    max_retries: int = 5
    max_parallel: int = 32
    adapter_folder: str = ""
    reload_every: int = 1


@dataclass(frozen=True)
class Wording:
    """How messages speak of a server.

    Attributes:
        owner: whose server it is.
        names: field of `Server` → what users call it.
        stored: from where the same command goes on.
        instead: what to do about a text that no server reads as we do.
    """

    owner: str
    names: Mapping[str, str]
    stored: str
    instead: str


RATIONALES = Wording(
    owner="rationales",
    names={
        "base_url": "--model-arg rationales",
        "model": "--model-arg rationales_model",
        "api_key_env": "--model-arg rationales_key_env",
        "max_parallel": "--model-arg rationales_parallel",
    },
    stored="what is stored",
    instead="run its task without --model-arg rationales",
)
ROLLOUTS = Wording(
    owner="adapt.server",
    names={field.name: f"adapt.server.{field.name}" for field in fields(Server)},
    stored="the last checkpoint",
    instead="leave that pair out",
)
_LEAST = {"timeout_seconds": 0.001, "max_retries": 0, "max_parallel": 1, "reload_every": 1}


def check_server(server: Server, wording: Wording) -> None:
    """Refuse settings that can't be.

    Raises:
        OptionError: names the setting and the way out.
    """
    names = wording.names
    check_address(server.base_url, server.api_key_env, "", (names["base_url"], names["api_key_env"]))
    for field, least in _LEAST.items():
        if getattr(server, field) < least:
            raise OptionError(f"{names[field]} must be at least {least:g}, not {getattr(server, field)}")
