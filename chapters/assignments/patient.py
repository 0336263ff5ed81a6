"""Runs a submission's cells, whatever they do: for nbgrader, in place of its own preprocessor.

nbgrader gives up a whole submission whose kernel dies or does not react, and gives all points to a
test that never ran. Here such a cell is stopped and says why; a new kernel repeats the cells before
it, and the rest is run. This is no sandbox: what a cell may do to the machine, it may do here too.
"""

import asyncio
import copy
import shutil
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL

from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.v4 import new_code_cell, new_output
from nbgrader.preprocessors import Execute
from traitlets import Integer

INTERRUPTED = "This cell ran for more than {} seconds and was stopped."
STUCK = "This cell ran for more than {} seconds and could not be stopped: its kernel was ended."
DIED = "The kernel died in this cell: it was killed, crashed, or ran out of memory."
LEFT = "This cell ended the kernel (exit or quit). The cells before it were run again."
FLOOD = "This cell printed more than {} kB and was stopped."
NOT_RUN = "Not run: {}"


class PatientExecute(Execute):
    """nbgrader's Execute, which survives loops, crashes, floods of output and a lost folder."""

    cell_seconds = Integer(60, help="a cell that runs longer is stopped").tag(config=True)
    all_seconds = Integer(300, help="cells after so many seconds are not run").tag(config=True)
    restarts = Integer(4, help="how many kernels a submission may lose").tag(config=True)
    max_output = Integer(500_000, help="characters; a cell that prints more is stopped").tag(
        config=True
    )

    def preprocess(self, nb, resources, km=None):
        """Run all cells in order; every test cell ends with its result or with an error."""
        self.iopub_timeout, self.startup_timeout, self.shutdown_kernel = 10, 180, "immediate"
        self.deadline = time.monotonic() + self.all_seconds
        waiting = [i for i, c in enumerate(nb.cells) if c.cell_type == "code" and c.source.strip()]
        done: list[int] = []  # the cells that ended by themselves, and may be repeated
        home = resources.get("metadata", {}).get("path") or "."
        for _ in range(self.restarts + 1):
            if not waiting:
                break
            # A copy of the folder: a cell may remove it, and nbgrader still needs it.
            with tempfile.TemporaryDirectory(
                prefix="sedd-mini-", ignore_cleanup_errors=True
            ) as name:
                folder = Path(name) / "1" / "2" / "work"  # a step or two up there is nothing
                shutil.copytree(home, folder)
                resources = {**resources, "metadata": {"path": str(folder)}}
                try:
                    waiting = self.session(nb, resources, done, waiting)
                except RuntimeError:  # the kernel did not start: another one took its ports
                    continue
        reason = "its kernel was lost too often." if waiting else ""
        if waiting and time.monotonic() > self.deadline:
            reason = f"the notebook ran for more than {self.all_seconds} seconds."
        for index in waiting:
            stop(nb.cells[index], NOT_RUN.format(reason))
        for cell in nb.cells:
            warnings_cost_nothing(cell)
        resources["metadata"] = {"path": home}
        return nb, resources

    def session(self, nb, resources, done: list[int], waiting: list[int]) -> list[int]:
        """Run cells in one kernel; returns those that another one has to run."""
        NotebookClient.__init__(self, nb, None)
        self.reset_execution_trackers()
        self._check_assign_resources(resources)
        index, start = None, time.monotonic()
        self.printed, self.interrupt = 0, None
        with self.setup_kernel(stdout=DEVNULL, stderr=DEVNULL):  # what C prints goes there as well
            try:
                self.warm_up(nb)
                self.deadline += time.monotonic() - start  # a slow start is not the student's
                for index in done:
                    self.run_cell(nb, index, again=True)
            except (DeadKernelError, CellTimeoutError):
                if index in done:
                    done.remove(index)  # it did not end as it had before
                return waiting
            for place, index in enumerate(waiting):
                if time.monotonic() > self.deadline:
                    return waiting[place:]
                cell, rest = nb.cells[index], waiting[place + 1 :]
                try:
                    self.run_cell(nb, index)
                except DeadKernelError:
                    stop(cell, DIED)
                    return rest
                except CellTimeoutError:
                    stop(cell, STUCK.format(self.cell_seconds))
                    return rest
                if self.left:
                    stop(cell, LEFT)
                    return rest
                if self.printed > self.max_output:
                    stop(cell, FLOOD.format(self.max_output // 1000))
                elif self.late:
                    stop(cell, INTERRUPTED.format(self.cell_seconds))
                elif not cell.metadata.get("nbgrader", {}).get("grade"):
                    done.append(index)
        return []

    def warm_up(self, nb) -> None:
        """Import PyTorch, outside of any cell's time: on a busy machine it takes half a minute."""
        self.timeout, first = self.startup_timeout, nb.cells[0]
        self.execute_cell(new_code_cell("import torch"), 0)
        self.timeout, nb.cells[0] = self.cell_seconds, first

    def run_cell(self, nb, index: int, again: bool = False) -> None:
        self.left, self.late, self.printed, self.interrupt = False, False, 0, None
        cell = nb.cells[index]
        self.execute_cell(copy.deepcopy(cell) if again else cell, index, store_history=True)
        nb.cells[index] = cell

    def on_cell_executed(self, **kwargs) -> None:
        super().on_cell_executed(**kwargs)
        reply = kwargs["execute_reply"]["content"]
        self.left = any(item.get("source") == "ask_exit" for item in reply.get("payload", []))
        self.late = reply.get("ename") == "CellTimeoutError"

    def process_message(self, msg, cell, cell_index):
        """Drop what a cell prints beyond max_output, and interrupt it once."""
        if msg["msg_type"] in ("stream", "display_data", "execute_result", "update_display_data"):
            self.printed += len(str(msg["content"]))
            if self.printed > self.max_output and msg["msg_type"] != "execute_result":
                if self.interrupt is None:
                    self.interrupt = asyncio.ensure_future(self.km.interrupt_kernel())
                return None
        return super().process_message(msg, cell, cell_index)


def stop(cell, reason: str) -> None:
    """End a cell with an error that gives the reason: a test without an error would get points."""
    cell.outputs = [output for output in cell.outputs if output.output_type != "error"]
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = output.text[:2000]
    del cell.outputs[5:]
    cell.outputs.append(new_output("error", ename="Stopped", evalue=reason, traceback=[reason]))


def warnings_cost_nothing(cell) -> None:
    """nbgrader takes any text on stderr in a test for a failure; a warning is none."""
    if cell.get("metadata", {}).get("nbgrader", {}).get("grade"):
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.name = "stdout"
