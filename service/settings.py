"""Every setting of the service, from the environment (prefix ``SEGMAMBA_``) or from arguments.

Nothing is read at import: the environment is looked at when a `Settings` is made. A test proves
that each field below has its paragraph in docs/how-to/serve.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from service.auth.settings import AuthSettings

if TYPE_CHECKING:
    from service.reading.limits import ReadingLimits

MEBIBYTE: Final = 1024 * 1024


def _state_folder() -> Path:
    """Where a user's programs keep what must last (XDG base directories)."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "segmamba"


class Settings(AuthSettings):
    """A frozen, checked set of settings; sizes in MiB, times in seconds."""

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
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
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
    window_batch: int = Field(
        default=1,
        ge=1,
        description="Windows handed to the network at once; more may be faster on a GPU, fewer are "
        "taken where its memory runs out.",
    )
    data_dir: Path = Field(
        default_factory=_state_folder,
        description="Folder of the job database, of waiting images and of results; a local disk.",
    )
    jobs_url: str | None = Field(
        default=None,
        description="The job database: postgresql://user@host/name for several machines; an "
        "SQLite file in the data folder when unset.",
    )
    blobs_url: str | None = Field(
        default=None,
        description="Where images wait and results stay: a folder that all machines share, or a "
        "URL that fsspec takes; in the data folder when unset.",
    )
    keep_hours: float = Field(
        default=24.0, gt=0, description="Hours that an ended job and its result are kept."
    )
    min_free_mb: int = Field(
        default=512, ge=0, description="MiB of free disk below which no study is taken; then 507."
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
        default=100, ge=1, description="Jobs that may wait; further ones are answered with 429."
    )
    attempts: int = Field(
        default=3, ge=1, description="How often a job is begun before it counts as failed."
    )
    hang_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Time without progress after which a worker ends itself and its job is begun "
        "again; longer than any single window takes.",
    )
    silence_seconds: float = Field(
        default=20.0,
        ge=2,
        description="Time without a sign of life after which a worker counts as dead.",
    )
    recycle_mb: int | None = Field(
        default=None,
        ge=1,
        description="MiB of memory after a job above which a worker ends and a new one takes its "
        "place; never when unset.",
    )
    reading_memory_mb: int = Field(
        default=4096, ge=64, description="MiB that the process may take that opens one study."
    )
    reading_cpu_seconds: float = Field(
        default=60.0, gt=0, description="Processor time that it may take."
    )
    reading_seconds: float = Field(
        default=120.0, gt=0, description="Time on the clock that it may take."
    )
    dicomweb_servers: str | None = Field(
        default=None,
        description="Archives that studies may be fetched from and results pushed to: "
        "name=https://pacs.example/dicom-web, several with commas between them.",
    )
    max_models: int = Field(
        default=2, ge=1, description="Models kept in memory, the default one among them."
    )
    models_memory_mb: int | None = Field(
        default=None,
        ge=1,
        description="MiB that the weights of the models in memory may take together; no limit when "
        "unset.",
    )
    grace_seconds: float = Field(
        default=30.0,
        ge=0,
        description="How long a running segmentation may go on after SIGTERM before it is stopped.",
    )

    @property
    def database_url(self) -> str:
        """URL of the job database."""
        return self.jobs_url or f"sqlite:///{self.data_dir.absolute() / 'jobs.sqlite'}"

    @property
    def storage_url(self) -> str:
        """Where blobs are."""
        return self.blobs_url or str(self.data_dir.absolute() / "blobs")

    @property
    def metrics_folder(self) -> Path:
        """Where the workers of this machine leave their numbers for the API to show."""
        return self.data_dir.absolute() / "metrics"

    @property
    def spool(self) -> Path:
        """Folder of files on their way to storage elsewhere; a folder of blobs has its own."""
        return self.data_dir.absolute() / ".spool"

    @property
    def reading_limits(self) -> ReadingLimits:
        """What the process that opens one study may cost."""
        from service.reading.limits import ReadingLimits

        return ReadingLimits(
            voxels=self.max_voxels,
            memory_mb=self.reading_memory_mb,
            cpu_seconds=self.reading_cpu_seconds,
            wall_seconds=self.reading_seconds,
        )

    @property
    def max_voxels(self) -> int:
        """The cap on the voxels of one image."""
        return self.max_megavoxels * 1_000_000

    @property
    def models_memory_bytes(self) -> int | None:
        """The cap on the weights in memory, in bytes."""
        return None if self.models_memory_mb is None else self.models_memory_mb * MEBIBYTE

    @property
    def max_upload_bytes(self) -> int:
        """The cap on the whole request body, in bytes."""
        return self.max_upload_mb * MEBIBYTE

    @property
    def max_file_bytes(self) -> int:
        """The cap on one uploaded image as it is sent, in bytes."""
        return self.max_file_mb * MEBIBYTE
