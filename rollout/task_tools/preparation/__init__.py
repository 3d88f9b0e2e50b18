"""Prepare tasks: fetch raw files, split them into public and private data, and measure the initial script."""

from rollout.task_tools.preparation.data_folder import write_data
from rollout.task_tools.preparation.prepare_tasks import prepare_all, prepared_task

__all__ = ["prepare_all", "prepared_task", "write_data"]
