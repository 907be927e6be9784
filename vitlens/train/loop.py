"""Trainer: one loop for every task - batches from the seed, one optimiser step after the other, checkpoints to go on from.

    Trainer(LensTask(recipe, model=model, train=rows, evaluation=labelled_rows)).run()

Which items come next, how they are augmented and the learning rate follow from the options and the number of the step; so a run
that was killed ends as if it had not been.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Generic, cast

import torch

from vitlens.disk import atomic, lock_folder, write_csv
from vitlens.display.progress import ProgressBar
from vitlens.display.terminal import remark
from vitlens.errors import VitlensError
from vitlens.processes import barrier, from_all, from_main, world
from vitlens.train.checkpoints import CheckpointFolder, check_identity
from vitlens.train.examples import StepSampler, TrainingBatch, seed_of
from vitlens.train.gradcache import Named, backward_through
from vitlens.train.logs import Logs, at_chance
from vitlens.train.losses import average_gradients
from vitlens.train.optimizer import build_optimizer, rate_at, set_rate, warmup_of
from vitlens.train.parallel import Parallel, gradient_norm, named_trainable, start_accelerate
from vitlens.train.recipe_files import recipe_yaml
from vitlens.train.state import RunState, live_state, put_back
from vitlens.train.task import Accuracy, Model, Task, TrainingResult


class NonFiniteLoss(VitlensError, ArithmeticError):
    """The loss or its gradient became NaN or infinite; the items of the batch are named."""


class Trainer(Generic[Model]):
    """Runs a task."""

    def __init__(self, task: Task[Model], *, progress: bool = True) -> None:
        self.task = task
        self.progress = progress

    def run(self) -> TrainingResult[Model]:
        """Train, or go on with what an interrupted run of the same task left in its folder, and save the result.

        Raises:
            OptionError: the folder holds another run or is in use; too many items cannot be read.
            NonFiniteLoss: the loss is NaN or infinite.
            MissingDependencyError: accelerate and its like; `pip install 'vitlens[train]'`.
        """
        options = self.task.options
        accelerator = start_accelerate(options)
        deterministic = torch.are_deterministic_algorithms_enabled()
        if options.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without it
        main = accelerator.is_main_process
        lock = lock_folder(options.folder, holder="another run writes there now") if main else None
        torch.use_deterministic_algorithms(options.deterministic or deterministic)
        try:
            with ProgressBar(show=self.progress and main) as bar:
                return _Run(self.task, accelerator, bar).go()
        finally:
            torch.use_deterministic_algorithms(deterministic)
            if lock is not None:
                lock.close()


class _Run(Generic[Model]):
    """One run from start to end."""

    def __init__(self, task: Task[Model], accelerator: Any, bar: ProgressBar) -> None:
        self.task, self.options = task, task.options
        self.accelerator, self.bar = accelerator, bar
        self.main: bool = accelerator.is_main_process
        self.device: torch.device = accelerator.device
        self.rank, self.world = world()
        task.prepare(self.device, bar.update)
        self.parallel = Parallel(task, accelerator)
        task.loss.to(self.device)
        named = named_trainable(self.parallel.network, task.loss)
        self.parameters = [parameter for _, parameter in named]
        optimizer = build_optimizer(named, self.options.optimizer)
        self.optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        self.state = RunState(task, self.parallel, optimizer, accelerator.scaler)
        self.checkpoints = CheckpointFolder(self.options.folder / "checkpoints", self.options.checkpoints.keep)
        self.identity = task.identity()
        whole = task.order.steps * self.options.schedule.epochs
        self.total = min(whole, self.options.schedule.max_steps or whole)
        """Optimiser steps of the run."""
        torch.manual_seed(seed_of(self.options.seed, "train", self.rank))

    def go(self) -> TrainingResult[Model]:
        """Resume, train, finish."""
        with self.parallel.frozen_in_precision():
            self._resume_and_train()
        return self._finish()

    def _resume_and_train(self) -> None:
        saved = from_main(self.checkpoints.latest() if self.main else None)
        if saved is not None:
            check_identity(saved["identity"], self.identity, self.options.folder)
            self.state.restore(saved)
        self._announce(resumed=saved is not None)
        self.task.bad.check()
        progress = self.state.progress
        if not progress.stopped and progress.step < self.total:
            columns, chance = self.task.logged(), self.task.chance
            where = self.options.folder, self.options.logs
            self.logs = Logs(*where, step=progress.step, columns=columns, chance=chance) if self.main else None
            try:
                self._train()
            finally:
                if self.logs is not None:
                    self.logs.close()

    def _announce(self, *, resumed: bool) -> None:
        if not self.main:
            return
        folder, total = self.options.folder, self.total
        with atomic(folder / "recipe.yaml") as part:
            part.write_text(recipe_yaml(self.options), encoding="utf-8")
        warmup, asked = warmup_of(self.options.schedule, total), self.options.schedule.warmup_steps
        if resumed:
            remark(f"going on after step {self.state.progress.step} of {total}")
        if warmup != asked:
            remark(f"the run has {total} steps: warm-up shortened from {asked} to {warmup}")
        self._write_bad_items()
        if self.task.bad.reasons:
            remark(f"{len(self.task.bad.reasons)} items cannot be used, see {folder / 'bad_items.csv'}")

    def _write_bad_items(self) -> None:
        if self.main:
            reasons = self.task.bad.reasons.items()
            write_csv(self.options.folder / "bad_items.csv", [{"name": name, "reason": why} for name, why in reasons])

    # --- the loop ------------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[TrainingBatch]:
        from torch.utils.data import DataLoader

        steps = StepSampler(self.task.order, self.state.progress.step, self.total, self.rank, self.world)
        yield from DataLoader(
            cast(Any, self.task.items),
            batch_sampler=cast(Any, steps),
            num_workers=self.task.num_workers,
            collate_fn=self.task.collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it would draw its seed from the generator whose state a resumed run takes up
        )

    def _train(self) -> None:
        begin = time.monotonic()
        for batch in self._batches():
            if batch.failure is not None:
                raise batch.failure
            norm = self._step(batch.to(self.device))
            self._log(norm, time.monotonic() - begin)
            begin = time.monotonic()
            self._after_step()
            if self.state.progress.stopped:
                return

    def _step(self, batch: TrainingBatch) -> float:
        """One optimiser step; returns the norm of the gradients."""
        progress, options = self.state.progress, self.options.optimizer
        with torch.no_grad(), self.accelerator.autocast():
            targets = self.task.targets(batch)
        self.optimizer.zero_grad()
        loss, outputs = backward_through(
            self.parallel.run,
            batch.inputs,
            lambda outputs: self.task.loss(outputs, targets),
            micro_batch=self.options.micro_batch,
            backward=self.accelerator.backward,
            no_sync=self.parallel.no_sync,
            module=self.parallel.network,
        )
        self._count(batch, loss, outputs)
        average_gradients(self.task.loss)
        self.accelerator.unscale_gradients(self.optimizer)
        norm = gradient_norm(self.parameters)
        if not torch.isfinite(norm) and self.accelerator.scaler is None:  # a scaler skips such a step by itself
            self._stop(batch, outputs, f"the gradient's norm is {float(norm)}")
        if options.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, options.clip_norm, norm)
        set_rate(self.optimizer, rate_at(progress.step, self.total, options.lr, self.options.schedule))
        self.optimizer.step()
        self.task.after_step()
        if self.state.average is not None:
            self.state.average.update(self.state.weights, progress.step)
        progress.step += 1
        return float(norm)

    def _count(self, batch: TrainingBatch, loss: torch.Tensor, outputs: Named) -> None:
        """The loss of the whole batch, and what could not be read; ends the run when either is past bearing."""
        sums = torch.stack([loss.float(), torch.tensor(float(len(batch.bad)), device=loss.device)])
        if self.world > 1:
            torch.distributed.all_reduce(sums)
        self.state.progress.loss = float(sums[0]) / self.world
        if self.task.bad.add(from_all(batch.bad) if float(sums[1]) else []):
            self._write_bad_items()
            self.task.bad.check()
        if not torch.isfinite(sums[0]):
            self._stop(batch, outputs, f"the loss is {self.state.progress.loss}")

    def _stop(self, batch: TrainingBatch, outputs: Named, what: str) -> None:
        kinds = [torch.isfinite(rows).reshape(len(rows), -1).all(dim=1) for rows in outputs.values()]
        finite = torch.stack(kinds).all(dim=0).tolist()
        odd = from_all([name for name, good in zip(batch.names, finite, strict=True) if not good])
        names = odd or from_all(list(batch.names))
        who = f"items whose {self.task.output} is not finite" if odd else "the batch"
        raise NonFiniteLoss(
            f"{what} at step {self.state.progress.step + 1}; {who}: {', '.join(names[:64])}"
            f"{f' and {len(names) - 64} more' if len(names) > 64 else ''}. The weights were left as they were before this step. "
            "Try a smaller optimizer.lr, optimizer.clip_norm=1, or precision=fp32"
        )

    # --- after a step --------------------------------------------------------------------------------------------------

    def _log(self, norm: float, seconds: float) -> None:
        if self.logs is None:
            return
        progress, group = self.state.progress, self.optimizer.param_groups[0]
        self.logs.step(
            {
                "step": progress.step,
                "epoch": progress.step / self.task.order.steps,
                "loss": progress.loss,
                "lr": group["lr"] / group["scale"],
                **self.task.logged(),
                "grad_norm": norm,
                "items_per_second": self.options.batch_size / max(seconds, 1e-9),
                "seconds": seconds,
            }
        )
        score = f", top-1 {100 * progress.score[0]:.1f} %" if progress.score else ""
        self.bar.update(self.options.name, progress.step, self.total, f"loss {progress.loss:.3f}{score}")

    def _after_step(self) -> None:
        done, options, every = self.state.progress.step, self.options.checkpoints, self.task.every_epochs
        epoch, place = divmod(done, self.task.order.steps)
        last = done == self.total
        best = False
        if every and (last or (not place and epoch % every == 0)):
            best = self._evaluate()
        if last or not place or best or (options.every_steps and done % options.every_steps == 0):
            content = {"identity": self.identity, **self.state.to_checkpoint()}
            if self.main:
                self.checkpoints.save(content, done, best=best)
        if self.logs is not None and not place:
            self.logs.draw()

    def _evaluate(self) -> bool:
        """Score the weights; True when they are the best so far."""
        progress, network = self.state.progress, self.parallel.network
        with self.state.averaged():
            network.eval()
            score = self.task.evaluate(self.parallel.run, self.device)
            self.task.train_mode(network)
        if score is None:
            return False
        progress.score = (score.top1, score.top5, score.items, score.skipped)
        best = score.top1 > progress.best
        progress.best, progress.waiting = (score.top1, 0) if best else (progress.best, progress.waiting + 1)
        patience = self.options.checkpoints.patience
        progress.stopped = patience is not None and progress.waiting >= patience
        if self.logs is not None:
            self.logs.evaluation({"step": progress.step, "epoch": progress.step / self.task.order.steps, **vars(score)})
        return best

    def _finish(self) -> TrainingResult[Model]:
        """Give network and loss the weights that the result has, let the task make something of them, and report."""
        weights, loss = self.state.result()
        wanted = self.options.checkpoints.result == "best"
        best = from_main(self.checkpoints.best() if wanted and self.main else None)
        if best is not None:
            weights, loss = best["average"] or best["network"], best["loss"]
        self.parallel.close()
        put_back(live_state(self.task.network.to("cpu")), weights)
        put_back(live_state(self.task.loss.to("cpu")), loss)
        model = self.task.result()
        if self.main:
            self.task.save(model, self.options.folder)
            if self.task.chance and (said := at_chance(self.options.folder, self.task.chance)):
                remark(said)
        barrier()
        progress = self.state.progress
        return TrainingResult(
            model=model,
            folder=self.options.folder,
            steps=progress.step,
            loss=progress.loss,
            chance=self.task.chance,
            score=Accuracy(*progress.score) if progress.score else None,
            best_top1=progress.best if progress.best >= 0 else None,
            bad_items=dict(self.task.bad.reasons),
            stopped_early=progress.stopped,
        )
