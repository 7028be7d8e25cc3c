"""Every setting of the service, from the environment (prefix ``SEGMAMBA_``) or from arguments.

Nothing is read at import: the environment is looked at when a `Settings` is made. A test proves
that each field below has its paragraph in docs/how-to/serve.md.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE: Final = 1024 * 1024


class Settings(BaseSettings):
    """A frozen, checked set of settings; sizes in MiB, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="SEGMAMBA_", frozen=True, extra="ignore", protected_namespaces=()
    )

    model: str | None = Field(
        default=None,
        description="Name of the default model; the bundled default when unset.",
    )
    device: str = Field(
        default="auto",
        description="Device that runs the network: cpu, cuda, cuda:1 …; auto: a GPU if any.",
    )
    backend: str | None = Field(
        default=None,
        description="Scan backend to force; the best one for the device when unset.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Arithmetic of the convolutions; auto: bfloat16 where the CPU is made for it.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of the network; the processors granted to the process when unset.",
    )
    memory_limit_mb: int | None = Field(
        default=None,
        ge=1,
        description="MiB that the process may hold while it segments; what the system grants when "
        "unset. A window over the whole brain keeps below it.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0: any free.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line that is written."
    )
    max_upload_mb: int = Field(
        default=256, ge=1, description="Largest request body, in MiB; more is answered with 413."
    )
    max_file_mb: int = Field(
        default=128, ge=1, description="Largest single image as sent, in MiB; more gives 413."
    )
    max_megavoxels: int = Field(
        default=64,
        ge=1,
        description="Most voxels of one image, in millions; read from its header before inflating.",
    )
    upload_seconds: float = Field(
        default=120.0, gt=0, description="Longest time that one upload may take; then 408."
    )
    queue_size: int = Field(
        default=4, ge=0, description="Requests that may wait behind the running one; then 503."
    )
    max_models: int = Field(
        default=2, ge=1, description="Models kept in memory, the default one among them."
    )
    grace_seconds: float = Field(
        default=30.0,
        ge=0,
        description="How long a running segmentation may go on after SIGTERM before it is stopped.",
    )

    @property
    def max_voxels(self) -> int:
        """The cap on the voxels of one image."""
        return self.max_megavoxels * 1_000_000

    @property
    def max_upload_bytes(self) -> int:
        """The cap on the whole request body, in bytes."""
        return self.max_upload_mb * MEBIBYTE

    @property
    def max_file_bytes(self) -> int:
        """The cap on one uploaded image as it is sent, in bytes."""
        return self.max_file_mb * MEBIBYTE
