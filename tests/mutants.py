"""Plants small wrongs in the package, one at a time, and shows that for each some test fails.

    python tests/mutants.py [--list] [--only N[,N]] [--jobs N]

Each entry of `MUTANTS` is a text of one file that occurs once, what stands there instead, and the tests that should
notice. They run in a copy of the package and its tests; the checkout is never touched. The exit status is 1 where a
mutant survives, where a text is not found exactly once, or where a test fails without any mutant.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import dataclasses
import importlib
import itertools
import json
import os
import py_compile
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 150
"""That one mutant's tests may take: a wrong that never ends is seen, too."""
SECONDS_UNMUTATED = 900


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One wrong: `old` in `file` of the package becomes `new`, and one of `tests` (node ids below tests/) fails."""

    file: str
    old: str
    new: str
    tests: str
    wrong: str

    @property
    def nodes(self) -> list[str]:
        """The tests as pytest takes them."""
        return [f"tests/{node.strip()}" for node in self.tests.splitlines() if node.strip()]

    def plant(self, text: str) -> str:
        """The file's text with the wrong in it. Raises ValueError where there is no one place for it."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"its text occurs {count} times in {self.file}, not once: {self.old!r}")
        changed = text.replace(self.old, self.new)
        compile(changed, self.file, "exec")
        return changed


# fmt: off
MUTANTS = (
    # Attacks
    Mutant("attacks/pgd.py", "slope.sign_().mul_(bounds.alpha)", "slope.sign_().mul_(-bounds.alpha)",
           "test_attacks.py::test_linf_pgd_is_foolboxs_bit_for_bit", "PGD descends"),
    Mutant("attacks/pgd.py", "_clamp_(moved, -bounds.eps, bounds.eps)", "_clamp_(moved, -bounds.alpha, bounds.eps)",
           "test_attacks.py::test_linf_pgd_is_foolboxs_bit_for_bit", "one side of the ball is as wide as a step"),
    Mutant("attacks/pgd.py", "mul_(bounds.eps).clamp_(max=1))", "mul_(bounds.eps))",
           "test_attacks.py::test_l2_pgd_is_foolboxs_bit_for_bit", "each L2 iterate is carried to the rim"),
    Mutant("attacks/pgd.py", "(x + noise * threat.eps).clamp_(0, 1)", "(x + noise * threat.eps)",
           "test_small_wrongs.py::test_an_attack_asks_only_about_images_within_its_budget",
           "PGD starts outside [0,1]"),
    Mutant("attacks/pgd.py", 'standing.rows["taken"] >= threat.steps', 'standing.rows["taken"] > threat.steps',
           "test_small_wrongs.py::test_pgd_takes_as_many_steps_as_asked", "with early stop one step too many"),
    Mutant("attacks/pgd.py", "min(standing.stride, threat.steps - done)", "min(standing.stride, threat.steps)",
           "test_small_wrongs.py::test_pgd_takes_as_many_steps_as_asked[True-looking each tenth]",
           "the last stride is not cut short"),
    Mutant("attacks/pgd.py", "_climb(model, x.clone(), centre,", "_climb(model, centre.clone(), centre,",
           "test_small_wrongs.py::test_as_run_begins_at_the_clean_image", "as-run starts at its jittered centre"),
    Mutant("attacks/apgd.py", "max(int(0.03 * steps), 1)", "max(int(0.04 * steps), 1)",
           "test_strong_attacks.py::test_checkpoints_and_shares_are_the_published_ones",
           "checkpoints draw together too fast"),
    Mutant("attacks/apgd.py", "_MOMENTUM if number > 1 else 1.0", "_MOMENTUM",
           "test_reference.py::test_apgd_is_theirs_to_the_bit[lenet-ce-linf]", "momentum in the first step"),
    Mutant("attacks/apgd.py", '(rows["increases"] <= _ENOUGH', '(rows["increases"] < _ENOUGH',
           "test_small_wrongs.py::test_a_step_size_is_halved_where_a_stretch_brought_too_little",
           "exactly three quarters of increases are enough"),
    Mutant("attacks/apgd.py", '"loss_then": rows["best_loss"],', '"loss_then": rows["loss_then"],',
           "test_small_wrongs.py::test_a_step_size_is_halved_where_a_stretch_brought_too_little",
           "a checkpoint forgets its best loss"),
    Mutant("attacks/apgd.py", "    ahead = into_ball(ahead, x, eps, threat.norm)\n    slope", "    slope",
           "test_small_wrongs.py::test_an_attack_asks_only_about_images_within_its_budget",
           "momentum carries APGD out of the ball"),
    Mutant("attacks/fab.py", "value, normal = -ahead, -slope.flatten(1)", "value, normal = -ahead, slope.flatten(1)",
           "test_strong_attacks.py::test_budget_range_input_and_seed[fab-t-linf]", "FAB walks away from the boundary"),
    Mutant("attacks/fab.py", "_OVERSHOOT = 1.05", "_OVERSHOOT = 0.95",
           "test_small_wrongs.py::test_fab_steps_over_a_boundary_and_back_towards_the_image",
           "FAB stops short of the boundary"),
    Mutant("attacks/fab.py", "torch.where(fooled.view(-1, 1, 1, 1), x +", "torch.where(fooled.view(-1, 1, 1, 1), x -",
           "test_small_wrongs.py::test_fab_steps_over_a_boundary_and_back_towards_the_image",
           "FAB goes back on the other side of the image"),
    Mutant("attacks/fab.py", "share = (far / (far + far_original))", "share = (far_original / (far + far_original))",
           "test_small_wrongs.py::test_fab_is_drawn_to_the_image_by_at_most_a_tenth",
           "the bias to the original grows with its distance"),
    Mutant("attacks/fab.py", "clamp(max=_TOWARDS_ORIGINAL)", "clamp(min=_TOWARDS_ORIGINAL)",
           "test_small_wrongs.py::test_fab_is_drawn_to_the_image_by_at_most_a_tenth",
           "the bias to the original is at least a tenth"),
    Mutant("attacks/fab.py", "fallen = torch.minimum(", "fallen = torch.maximum(",
           "test_strong_attacks.py::test_the_projection_is_the_nearest_point_of_the_boundary",
           "the projection lets coordinates go on behind their end"),
    Mutant("attacks/fab.py", "room = (away.clamp(min=0) - x)", "room = (away.clamp(max=0) + x)",
           "test_strong_attacks.py::test_the_projection_is_the_nearest_point_of_the_boundary",
           "the room to 0 and to 1 are exchanged"),
    Mutant("attacks/square.py", "sum(at > after for", "sum(at >= after for",
           "test_strong_attacks.py::test_checkpoints_and_shares_are_the_published_ones",
           "squares are halved one query early"),
    Mutant("graphs.py", "        count(self._passes)\n", "",
           "test_graphs.py::test_a_recorded_attack_is_the_attack[linf]", "what is played again costs nothing"),
    Mutant("attacks/sets.py", "self._passes[part].add(", "Passes().add(",
           "test_strong_attacks.py::test_a_piece_is_as_large_as_what_changed", "an attack's cost is forgotten"),
    Mutant("attacks/common.py", "count(Passes(n))", "count(Passes(max(n, 16)))",
           "test_strong_attacks.py::test_what_an_attack_took_is_what_the_network_saw[square]",
           "rows that only fill a batch are counted"),
    Mutant("attacks/square.py", 'better = found > rows["best"]', 'better = found < rows["best"]',
           "test_small_wrongs.py::test_square_never_ends_worse_than_it_began", "Square keeps what is worse"),
    Mutant("attacks/square.py", "helping.int().argmax", "helping.int().cumsum(1).argmax",
           "test_small_wrongs.py::test_several_squares_at_a_time_come_to_what_one_at_a_time_does",
           "of several squares the last that helps counts"),
    Mutant("attacks/square.py", "[height - sizes, width - sizes]", "[height - sizes + 1, width - sizes]",
           "test_small_wrongs.py::test_a_square_never_lies_at_the_last_place", "squares reach one row further"),
    Mutant("attacks/square.py", 'tried[window] = (rows["x"][window]', "tried[window] = (tried[window]",
           "test_strong_attacks.py::test_budget_range_input_and_seed[square-linf]",
           "squares add up around the attacked image"),
    Mutant("attacks/square.py", "moved = (x[:, None]", 'moved = (rows["x_adv"][:, None]',
           "test_graphs.py::test_recorded_squares_are_what_they_are_one_by_one",
           "recorded squares add up around the attacked image"),
    Mutant("attacks/pma.py", '("right", "wrong")', '("right", "right")',
           "test_cascade.py::test_the_second_pass_begins_elsewhere_and_climbs_another_term",
           "PMA's second pass climbs what the first did"),
    Mutant("attacks/malt.py", "argsort(dim=1, stable=True)", "argsort(dim=1, descending=True)",
           "test_cascade.py::test_malt_tries_the_classes_first_that_a_linear_network_would_reach_first",
           "MALT begins with the farthest class"),
    Mutant("attacks/sets.py", "        wanted &= ~self.proved\n", "",
           "test_cascade.py::test_what_intervals_prove_is_not_attacked_and_stands",
           "the cascade attacks what is proved"),
    Mutant("attacks/sets.py", "< share * self._leads[0]", "< share",
           "test_cascade.py::test_some_parts_are_for_those_of_whose_lead_little_is_left",
           "what leads by little from the beginning counts as nearly broken"),
    Mutant("attacks/run.py", "leads.minimum(self.leads[standing])", "leads",
           "test_cascade.py::test_a_lead_is_what_the_right_class_has_more_and_the_least_of_all_tries",
           "the last try alone says how near an image is"),
    Mutant("attacks/sets.py", "(found > _RAISED * before)", "(found >= before)",
           "test_cascade.py::test_parts_for_those_whose_loss_the_search_raised[2.0]",
           "the cascade's last part attacks all that stand"),
    Mutant("attacks/sets.py", "doubtful |= found > _DOUBLED * before", "doubtful |= found < before",
           "test_cascade.py::test_parts_for_those_whose_loss_the_search_raised[1.02]",
           "what the search surely found hidden is left alone"),
    Mutant("attacks/sets.py", "left += todo * (", "left += len(self._x) * (",
           "test_work.py::test_what_is_left_of_an_ensemble_is_foreseen",
           "the time left counts images that need no attack"),
    Mutant("layout.py", "max(cell_len(word) for text in column for word in text.split() or [\"\"])", "1",
           "test_layout.py::test_what_does_not_fit_is_row_under_row", "a table breaks words"),
    Mutant("runtime.py", "                left.set()\n", "",
           "test_runtime.py::test_where_the_caller_leaves_what_is_under_way_ends",
           "Ctrl-C waits for the longest attack"),
    Mutant("attacks/square_pgd.py", "_ALPHA = 1 / 30", "_ALPHA = 1 / 3",
           "test_small_wrongs.py::test_square_and_pgd_is_a_rescaled_square_and_then_small_steps",
           "PGD after Square takes large steps"),
    Mutant("attacks/square_pgd.py", "rescaled=True)", "rescaled=False)",
           "test_small_wrongs.py::test_square_and_pgd_is_a_rescaled_square_and_then_small_steps",
           "its Square keeps the schedule of 10,000 queries"),
    Mutant("attacks/standing.py", "fresh = (fooled & ~won)", "fresh = fooled",
           "test_small_wrongs.py::test_the_first_winning_image_is_kept", "a later winning image replaces the first"),
    Mutant("attacks/standing.py", 'self.rows["won"] = won & outcome', 'self.rows["won"] = won | outcome',
           "test_attacks.py::test_a_candidate_that_float32_calls_right_goes_on", "bf16 alone decides who has won"),
    Mutant("attacks/standing.py", "fresh = min(self._n - self._entered,", "fresh = min(self._n - self._entered - 1,",
           "test_small_wrongs.py::test_places_that_are_refilled_leave_nobody_out", "the last sample is never attacked"),
    Mutant("attacks/run.py", "tried_success | (tried_loss > loss", "tried_success | (tried_loss < loss",
           "test_small_wrongs.py::test_each_try_has_draws_of_its_own_and_the_worst_is_kept",
           "of several tries the mildest counts"),
    Mutant("attacks/run.py", "seed=self._seed + turn", "seed=self._seed",
           "test_small_wrongs.py::test_each_try_has_draws_of_its_own_and_the_worst_is_kept",
           "each restart draws the same"),
    Mutant("attacks/run.py", "ranked[:, turn % threat.targets]", "ranked[:, (turn + 1) % threat.targets]",
           "test_small_wrongs.py::test_targets_are_the_likeliest_wrong_classes_in_their_order",
           "targets are one rank off"),
    Mutant("attacks/sets.py", "self._leads[:] = self.clean,", "self._leads[:] = torch.tensor(True),",
           "test_small_wrongs.py::test_images_that_are_wrong_clean_are_not_attacked_where_only_the_verdict_counts",
           "images that are wrong clean are attacked"),
    Mutant("attacks/sets.py", "torch.tensor(True)) & ~self._done[part]", "torch.tensor(True))",
           "test_small_wrongs.py::test_what_an_attack_has_done_is_not_done_again",
           "a continued attack does again what is done"),
    Mutant("attacks/sets.py", "index=self._index[samples].to", "index=samples.to",
           "test_attacks.py::test_nothing_depends_on_batches_order_or_company[l2]",
           "a sample's numbers follow from its place, not its index"),
    Mutant("attacks/common.py", "parameter.requires_grad_(flag)", "parameter.requires_grad_(True)",
           "test_attacks.py::test_the_attack_leaves_everything_as_it_was", "frozen parameters thaw after an attack"),
    Mutant("attacks/common.py", "(ordered[:, 2] + ordered[:, 3]) / 2", "ordered[:, 2]",
           "test_strong_attacks.py::test_losses_are_what_their_papers_say",
           "targeted DLR is divided as untargeted is"),
    Mutant("attacks/common.py", "if not (low >= 0 and high <= 1):", "if low < 0 or high > 1:",
           "test_attacks.py::test_results_outside_range_or_budget_are_refused", "NaN passes the check of a result"),
    Mutant("attacks/common.py", "0 < n < _ENOUGH", "0 < n < 1",
           "test_attacks.py::test_logits_and_gradients_are_the_same_bits_in_any_batch[lenet5-float32]",
           "few images are not filled up"),
    Mutant("attacks/batches.py", "1 << (most.bit_length() - 1)", "1 << most.bit_length()",
           "test_runtime.py::test_batches_are_powers_of_two_that_fit", "a batch is twice what memory holds"),
    Mutant("attacks/common.py", "            least = _ENOUGH\n", "            least = 4\n",
           "test_runtime.py::test_where_torch_changes_the_routine_at_16_images_a_cpu_thread_takes_as_many",
           "few images of a network with 1x1 convolutions are not filled up"),
    Mutant("runtime.py", "    torch.set_num_threads(1)\n    _OF", "    torch.set_num_threads(2)\n    _OF",
           "test_runtime.py::test_beside_others_a_part_has_one_thread_from_its_beginning",
           "a batch is divided among threads"),
    Mutant("attacks/batches.py", "-(-n // max(parts, 1))", "n",
           "test_runtime.py::test_a_cpu_thread_takes_what_suits_it", "few images all go to one thread"),

    # Random numbers
    Mutant("draws.py", "(_mixed(h) >> 8)", "(_mixed(h) >> 9)",
           "test_draws.py::test_the_numbers_are_those_of_every_machine", "numbers reach one half only"),
    Mutant("draws.py", "_LOW) ^ (index >> 32))", "_LOW))",
           "test_small_wrongs.py::test_samples_beyond_32_bits_have_numbers_of_their_own",
           "an index counts modulo 2^32"),
    Mutant("draws.py", "** (1 / d)", "** (1 / (d - 1))",
           "test_draws.py::test_points_fill_the_ball[l2]", "the L2 ball is filled unevenly"),
    Mutant("draws.py", '*parts, "radius")', "*parts)",
           "test_small_wrongs.py::test_how_far_a_point_lies_says_nothing_of_its_direction",
           "the radius is the direction's number again"),

    # Mixing and training
    Mutant("mixing.py", "if called:", "if False:",
           "test_own.py::test_a_stage_that_is_called_twice_is_mixed_once", "a stage is mixed each time it is called"),
    Mutant("mixing.py", "there[stage - 1]", "there[stage - 2]",
           "test_own.py::test_hooks_mix_what_the_stages_of_a_sequence_take", "stages are one off"),
    Mutant("data/prepared.py", ".shuffle(order)", ".random()",
           "test_own.py::test_the_first_images_of_a_folder_are_of_all_classes", "a folder begins with one class"),
    Mutant("models/__init__.py", "if hashlib.sha256(code).hexdigest() != network.code:", "if False:",
           "test_own.py::test_a_code_that_is_gone_or_changed_is_said", "a network's changed file is run"),
    Mutant("workflows/references.py", "if not model.stored and", "if False and",
           "test_own.py::test_a_network_s_file_is_run_only_where_it_was_named", "a file from elsewhere is run"),
    Mutant("data/pixels.py", "self._offset + rows[done] * size", "self._offset + done * size",
           "test_own.py::test_a_set_that_does_not_fit_in_memory_gives_the_same", "other rows than asked for are read"),
    Mutant("mixing.py", "return a * lam + b * (1 - lam)", "return a * (1 - lam) + b * lam",
           "test_mixing.py::test_lambda_one_is_no_mixing_and_zero_the_shuffled_batch", "lambda is the partner's share"),
    Mutant("mixing.py", "1 - (classes - 1) * sigma)", "1 - classes * sigma)",
           "test_mixing.py::test_sigma_is_label_smoothing_of_n_times_sigma", "soft labels do not sum to one"),
    Mutant("mixing.py", "draw.shuffled(partner), draw.lam)), draw.mixed(targets)",
           "draw.shuffled(partner), draw.lam)), targets",
           "test_adversarial_training.py::test_the_partner_is_clean_shuffled_and_mixed_at_the_input",
           "partial PGD learns unmixed labels"),
    Mutant("mixing.py", 'generator("cpu", settings.seed, "shuffle", epoch)',
           'generator("cpu", settings.seed, "shuffle")',
           "test_small_wrongs.py::test_each_epoch_mixes_anew", "each epoch shuffles alike"),
    Mutant("mixing.py", "logits.float().softmax(1), targets)", "logits.float().sigmoid(), targets)",
           "test_mixing.py::test_the_losses_are_what_they_are_called", "bce-softmax of a sigmoid"),
    Mutant("optimizing.py", "[epoch * steps_per_epoch for epoch in settings.milestones]",
           "[(epoch + 1) * steps_per_epoch for epoch in settings.milestones]",
           "test_training.py::test_one_cycle_and_steps_follow_their_schedules", "milestones come an epoch late"),
    Mutant("splitting.py", "order[settings.validation :]", "order",
           "test_training.py::test_splits_do_not_overlap_and_keep_their_limits", "validation images are learned from"),
    Mutant("splitting.py", "[: held.count]", "[held.count :]",
           "test_training.py::test_splits_do_not_overlap_and_keep_their_limits", "what was learned counts as held out"),
    Mutant("workflows/card/facts.py", "evaluation.settings.held is not None", "False",
           "test_cli.py::test_models_meet_what_their_runs_held_out", "a card has figures of what chose the epoch"),
    Mutant("requests/attacking.py", "if len(found) > 1:", "if False:",
           "test_cli.py::test_models_meet_what_their_runs_held_out", "models meet what another's run held out"),
    Mutant("training.py", 'losses.append(after["loss"] * own)',
           'losses.append(after["loss"] * settings.batch_size)',
           "test_training.py::test_a_short_last_batch_weighs_what_it_holds", "a short batch weighs as a whole one"),
    Mutant("optimizing.py", "    if clip:\n", "    if not clip:\n",
           "test_training.py::test_long_gradients_are_shortened_and_short_ones_are_not", "gradients are never clipped"),
    Mutant("training.py", 'before["validation_accuracy"] / 2', 'before["validation_accuracy"] / 4',
           "test_methods.py::test_a_collapse_of_certified_training_is_seen_and_undone", "a collapse is not seen"),
    Mutant("methods/recycling.py", "inputs[:, channel] = 0", "pass",
           "test_methods.py::test_a_channel_that_is_off_begins_anew_as_another_moved_by_a_pixel",
           "what begins anew changes what the network says"),
    Mutant("methods/bounded.py", "self._epoch = batch.seed", "pass",
           "test_methods.py::test_channels_begin_anew_at_the_start_of_each_epoch_until_it_is_said",
           "channels begin anew at each batch"),
    Mutant("presets.py", '"shift": 28, ', "",
           "test_config.py::test_how_an_augmentation_moves_images", "shift moves nothing"),
    Mutant("augmentation.py", "(2 * padding + 1)", "(2 * padding)",
           "test_small_wrongs.py::test_a_crop_begins_anywhere_in_the_padding", "a crop never reaches the last offset"),
    Mutant("training.py", "(epoch - 1) * self.steps + step + 1", "epoch * self.steps + step + 1",
           "test_small_wrongs.py::test_the_attack_of_training_grows_over_all_epochs", "the ramp is an epoch ahead"),
    Mutant("training.py", "if rank > self.best_rank:", "if rank >= self.best_rank:",
           "test_small_wrongs.py::test_of_equal_accuracies_the_lowest_loss_is_chosen_and_then_the_earliest",
           "of equal epochs the last is chosen"),
    Mutant("training.py", '-row.get("validation_loss", 0.0))', 'row.get("validation_loss", 0.0))',
           "test_small_wrongs.py::test_of_equal_accuracies_the_lowest_loss_is_chosen_and_then_the_earliest",
           "of equal accuracies the highest loss is chosen"),
    Mutant("optimizing.py", "group.update({name: value for name, value in had.items() if name in group})", "pass",
           "test_training.py::test_a_state_of_another_device_keeps_this_ones_optimiser",
           "a CPU's optimiser options survive on a GPU"),

    # Scores and statistics
    Mutant("evaluation.py", "said.softmax(1).amax(1)", "said.amax(1)",
           "test_small_wrongs.py::test_a_score_knows_losses_and_probabilities", "confidence is a logit"),
    Mutant("evaluation.py", ".ceil().long().sub_(1)", ".ceil().long()",
           "test_small_wrongs.py::test_bins_of_confidence_hold_what_is_in_them", "confidences are one bin too high"),
    Mutant("statistics.py", "z * z / (4 * n * n)", "z * z / (4 * n)",
           "test_evaluation.py::test_wilson_against_published_intervals", "Wilson's interval is too wide"),
    Mutant("statistics.py", "2 * tail / 2**n", "tail / 2**n",
           "test_evaluation.py::test_mcnemar", "McNemar's test is one-sided"),
    Mutant("statistics.py", "statistics.stdev(values)", "statistics.pstdev(values)",
           "test_small_wrongs.py::test_the_deviation_is_that_of_a_sample", "the deviation is a population's"),
    Mutant("statistics.py", "n * abs(confidence - right)", "abs(confidence - right)",
           "test_small_wrongs.py::test_bins_of_confidence_hold_what_is_in_them", "each bin weighs the same"),

    # The audit
    Mutant("auditing/checks.py", "100 * int(torch.bincount(self.y).max()) / len(self.y)", "100 / self.classes",
           "test_audit.py::test_always_the_commonest_class_is_no_better_than_chance", "a constant beats chance"),
    Mutant("auditing/checks.py", '"one step finds no more than forty", ~fgsm,',
           '"one step finds no more than forty", fgsm,',
           "test_audit.py::test_each_check_grades_what_it_is_for", "FGSM is blamed for what it leaves"),
    Mutant("auditing/checks.py", '"noise finds nothing that PGD missed", ~right,',
           '"noise finds nothing that PGD missed", right,',
           "test_audit.py::test_noise_counts_against_what_pgd_left", "noise is blamed for what it leaves"),
    Mutant("auditing/checks.py", "right &= self.right((self.x + self.eps", "right = self.right((self.x + self.eps",
           "test_audit.py::test_noise_counts_against_what_pgd_left", "only the last draw of noise counts"),
    Mutant("auditing/checks.py", "max(rise, accuracy - lowest)", "max(rise, lowest - accuracy)",
           "test_audit.py::test_points_on_the_way_should_not_be_worse_than_its_end[right2-suspicious]",
           "the check of the way looks for falls"),
    Mutant("auditing/checks.py", '"PGD is near the strongest gradient attack", ~left,',
           '"PGD is near the strongest gradient attack", left,',
           "test_audit.py::test_each_check_grades_what_it_is_for", "APGD is blamed for what it leaves"),
    Mutant("auditing/checks.py", '"white box is no weaker than black box", ~left,',
           '"white box is no weaker than black box", left,',
           "test_audit.py::test_each_check_grades_what_it_is_for", "Square is blamed for what it leaves"),
    Mutant("auditing/checks.py", "transfer from {name}\", ~right,", "transfer from {name}\", right,",
           "test_audit.py::test_transfer_counts_against_what_stood", "transfer is blamed for what it leaves"),
    Mutant("auditing/checks.py", "self.standing = self.standing & flags", "self.standing = flags",
           "test_small_wrongs.py::test_what_stands_has_stood_against_all_that_was_tried",
           "only the last attack of the audit counts"),
    Mutant("auditing/checks.py", "(taken & stood).sum()", "taken.sum()",
           "test_small_wrongs.py::test_a_share_is_of_those_that_stood", "a share counts images that had fallen"),
    Mutant("auditing/grades.py", "graded(wilson(taken, stood)[0],", "graded(wilson(taken, stood)[1],",
           "test_audit.py::test_grades_are_by_the_share_of_what_stood", "one image is proof"),
    Mutant("auditing/grades.py", "wilson(taken, n)[0] > NEGLIGIBLE", "wilson(taken, stood)[0] > NEGLIGIBLE",
           "test_audit.py::test_grades_are_by_the_share_of_what_stood", "what is negligible is of those that stood"),

    # Keys, labels and digests
    Mutant("settings.py", 'return found | {"versions": versions} if versions else found', "return found",
           "test_config.py::test_a_mended_attack_does_not_answer_from_before", "keys know no versions"),
    Mutant("settings.py", '"from": made_from}', '"from": sorted(made_from)}',
           "test_config.py::test_the_key_depends_on_what_a_thing_is_made_from",
           "a key knows only what kind of parents"),
    Mutant("threats.py", "[self.attack, *(part.attack for part in self.declared.parts)]", "[self.attack]",
           "test_config.py::test_a_mended_attack_does_not_answer_from_before",
           "an ensemble forgets its parts' versions"),
    Mutant("threats.py", 'parts += [self.precision] if self.precision != "float32" else []', "pass",
           "test_config.py::test_a_label_tells_each_field_apart", "two threats share a label"),
    Mutant("threats.py", "reach: float = 2.5", "reach: float = 2.0",
           "test_config.py::test_the_default_threats", "the default step is too small"),
    Mutant("artifacts/digests.py", "canonical_json([name, dtype, list(shape)])", "canonical_json([name, dtype])",
           "test_small_wrongs.py::test_a_digest_is_of_names_types_shapes_and_values", "a digest knows no shapes"),
    Mutant("artifacts/digests.py", "in sorted(parts, key=lambda part: part[0]):", "in parts:",
           "test_small_wrongs.py::test_a_digest_is_of_names_types_shapes_and_values",
           "a digest depends on the order of tensors"),
    Mutant("artifacts/checkpoints.py", 'digest_of(each) for which, each in parts.items()',
           'record["digests"][which] for which in parts',
           "test_artifacts.py::test_a_flipped_bit_in_a_checkpoint_is_found", "the last epoch's weights go unchecked"),

    # The store
    Mutant("locks.py", "lock.acquire(poll_interval=0.1)", "pass",
           "test_store.py::test_a_lock_is_exclusive_says_so_and_waits[system]",
           "who has waited goes on without the lock"),
    Mutant("files.py", "os.fsync(file.fileno())", "pass",
           "test_store.py::test_a_write_is_whole_or_not_at_all", "a write is not synced before it is renamed"),
    Mutant("store.py", "(-entry.stat(follow_symlinks=False)", "(entry.stat(follow_symlinks=False)",
           "test_store.py::test_latest_is_what_a_command_last_gave", "the oldest artifact comes first"),
    Mutant("store.py", "found = 1  # the only", "found = SCHEMA  # the only",
           "test_store.py::test_a_store_of_another_schema_is_refused_with_what_to_do",
           "a store of the first schema is taken for this one"),

    Mutant("store.py", "real.parent != Path(os.path.realpath(self.root / kind))", "False",
           "test_store.py::test_only_its_own_files_are_the_stores", "a copy elsewhere is taken for the store's own"),
    Mutant("store.py", "if kind in SUFFIXES and _NAME.fullmatch(name) and", "if kind in SUFFIXES and",
           "test_store.py::test_refs_stay_inside", "a ref leads outside the store"),
    Mutant("store.py", "except (NotFoundError, DamagedError, UnicodeDecodeError):",
           "except (AdvmixError, UnicodeDecodeError):",
           "test_store.py::test_a_ref_that_cannot_be_read_is_no_ref_that_leads_nowhere",
           "a ref that cannot be read just now is deleted"),
    Mutant("files.py", "if _lock(file, wait=False) and", "if",
           "test_store.py::test_what_is_being_written_is_let_be_and_a_stray_is_written_over",
           "what is being written is deleted"),
    Mutant("files.py", "file.truncate(0)", "pass",
           "test_store.py::test_what_is_being_written_is_let_be_and_a_stray_is_written_over",
           "a file keeps the end of what a killed writer left"),
    Mutant("files.py", "if not stat.S_ISREG(status.st_mode):", "if False:",
           "test_store.py::test_only_regular_files_are_read_and_none_beyond_its_bound", "a pipe is read"),
    Mutant("files.py", "if status.st_size > most:", "if False:",
           "test_store.py::test_only_regular_files_are_read_and_none_beyond_its_bound", "a bound is none"),
    Mutant("artifacts/archives.py", "if count > storage.numel or (count and last >= storage.numel):", "if False:",
           "test_artifacts.py::test_what_a_file_claims_is_checked", "a tensor is larger than its values"),
    Mutant("artifacts/records.py", '{"schema": SCHEMA, "name": NAME,', '{"schema": SCHEMA, "name": str,',
           "test_artifacts.py::test_a_record_is_checked_key_by_key", "a record's name may be a path"),
    Mutant("artifacts/agreeing.py", 'cell["correct"] != right', "False",
           "test_artifacts.py::test_an_evaluations_flags_are_those_of_its_images",
           "an evaluation's count is not that of its flags"),

    # The card
    Mutant("workflows/card/facts.py", '(each["n"], each["date"]) > (other["n"], other["date"])',
           '(each["date"], each["n"]) > (other["date"], other["n"])',
           "test_card.py::test_each_figure_is_that_of_the_most_images_then_the_newest",
           "a newer figure on fewer images takes the place of one on more"),
    Mutant("workflows/card/facts.py", '(r.lineage["name"], r.lineage["digest"]) == own',
           'r.lineage["digest"] == own[1]',
           "test_card.py::test_each_figure_is_that_of_the_most_images_then_the_newest",
           "another model's figures are on the card"),
    Mutant("workflows/card/facts.py", 'source["fingerprint"], source["split"], *what', "*what",
           "test_card.py::test_figures_on_other_images_and_splits_stand_apart",
           "figures on training images are taken for those on test images"),
    Mutant("workflows/card/facts.py", 'record["digests"].get(begun["weights"]) == begun["digest"]', "True",
           "test_card.py::test_the_lineage_is_said_with_the_command_of_each",
           "other weights of that name are taken for those that training began from"),
    Mutant("workflows/card/limits.py", 'and not each["inference"] and not _as_run(each)', 'and not each["inference"]',
           "test_card.py::test_what_proves_nothing_of_the_network_itself_is_no_metric_of_the_hub",
           "the as-run attack's figure is a metric of the hub"),
    Mutant("workflows/card/markdown.py", '" ".join(shown(text).split())', "shown(text)",
           "test_card.py::test_a_cell_is_one_cell_and_means_itself", "a line break in a name ends a table"),
    Mutant("workflows/card/markdown.py", '"`" * max(3, longest + 1)', '"```"',
           "test_card.py::test_a_fence_holds_whatever_is_in_it\n"
           "test_card.py::test_no_name_breaks_the_markdown_or_the_metadata", "a command ends its block"),
    Mutant("workflows/card/metadata.py", "shown(value) if isinstance(value, str) else value", "value",
           "test_card.py::test_yaml_says_what_was_written", "a control character makes the metadata unreadable"),
    Mutant("workflows/card/__init__.py", "if files.there(path) and (path.is_dir() or not session.force):", "if False:",
           "test_card.py::test_a_file_that_is_there_is_kept_unless_told", "a card is written over another file"),
    Mutant("workflows/card/__init__.py", "if Path(os.path.realpath(session.store.root)) in", "if None in",
           "test_card.py::test_what_is_wrong_is_said_and_nothing_is_lost", "a card is written over a checkpoint"),
    Mutant("workflows/card/folder.py", 'said = f"x.expand(-1, {built.channels}, -1, -1)"', 'said = "x"',
           "test_card.py::test_the_lines_for_torch_make_any_network", "the lines for torch take no grey images"),
    Mutant("workflows/evaluation/measure.py", "self._on_cache(cache, column.joint), cache.labels",
           "self._on_cache(cache, column.joint), labels",
           "test_small_wrongs.py::test_cells_say_what_is_right_in_their_column",
           "a cache's images are counted under the labels of others"),
    Mutant("workflows/evaluation/counting.py", "(labels, labels[correct])", "(labels, labels[~correct])",
           "test_card.py::test_the_classes_are_counted_where_an_evaluation_recorded_them",
           "what is wrong of each class is counted as right"),
    Mutant("artifacts/agreeing.py", "or any(s > n for n, s in", "or any(s < 0 for n, s in",
           "test_hostile_records.py::test_an_evaluation_whose_numbers_cannot_be", "a class has more right than images"),

    # Workflows
    Mutant("workflows/train.py", 'if name != "seed"}', "}",
           "test_small_wrongs.py::test_runs_that_differ_in_seeds_alone_are_one_and_keep_those_of_their_lineage",
           "runs of other seeds are other runs"),
    Mutant("workflows/train.py", '[*before["seeds"], settings.seed]', "[settings.seed]",
           "test_small_wrongs.py::test_runs_that_differ_in_seeds_alone_are_one_and_keep_those_of_their_lineage",
           "the seeds of a lineage are lost"),
    Mutant("workflows/evaluation/columns.py", 'cache.record["n"] >= n', 'cache.record["n"] > n',
           "test_small_wrongs.py::test_a_worst_case_is_over_white_box_threats_and_whole_caches_of_the_same_images",
           "a whole cache is no part of the worst case"),
    Mutant("workflows/evaluation/columns.py", "if found[i].joint and", "if",
           "test_small_wrongs.py::test_a_worst_case_is_over_white_box_threats_and_whole_caches_of_the_same_images",
           "the worst case is over other images, too"),
    Mutant("workflows/evaluation/measure.py", "found[0] & flags[other][0]", "found[0] | flags[other][0]",
           "test_small_wrongs.py::test_cells_say_what_is_right_in_their_column", "the worst case is the best"),
    Mutant("workflows/evaluation/measure.py", "self.clean.correct[cache.index] if joint",
           "self.clean.correct[: len(cache.index)] if joint",
           "test_small_wrongs.py::test_cells_say_what_is_right_in_their_column",
           "a cache meets the clean flags of other images"),
    Mutant("workflows/evaluation/measure.py", "[: len(shown)]\n        passes", "\n        passes",
           "test_small_wrongs.py::test_cells_say_what_is_right_in_their_column",
           "a standard ensemble's figure takes in what follows it"),
    Mutant("statistics.py", "largest = max(largest, min(", "largest = max(0.0, min(",
           "test_formats.py::test_holm_is_what_it_says", "an adjusted p falls below a smaller one"),
    Mutant("formats.py", '"[": "{[}",', "", "test_formats.py::test_latex_has_no_letter_that_means_something",
           "a cell of LaTeX is a length"),
    Mutant("workflows/evaluation/statistics.py", "(only_a - only_b) / cell_a.n", "(only_b - only_a) / cell_a.n",
           "test_small_wrongs.py::test_a_difference_is_the_first_model_less_the_second", "differences change sign"),
    Mutant("workflows/evaluation/statistics.py", '.setdefault(tuple(row.run["seeds"]), i)',
           '.setdefault((*row.run["seeds"], i), i)',
           "test_small_wrongs.py::test_a_seed_counts_once_and_other_runs_not_at_all",
           "a model named twice is two seeds"),
    Mutant("workflows/evaluation/table.py", "cell.after[column.threat.standard - 1][1]",
           "cell.after[column.threat.standard][1]",
           "test_small_wrongs.py::test_what_follows_an_ensemble_is_counted_from_its_figure",
           "what follows an ensemble is counted from its own end"),
    Mutant("workflows/references.py", "if artifacts.tensors_digest(weights) != model.digest:", "if not weights:",
           "test_small_wrongs.py::test_weights_that_were_replaced_are_not_those_that_were_meant",
           "weights are not checked when they are read"),
    Mutant("workflows/unfinished.py", 'kept["number"] + 1', 'kept["number"]',
           "test_small_wrongs.py::test_pieces_of_several_sittings_come_back_in_their_order",
           "a new piece overwrites the last one"),
    Mutant("workflows/unfinished.py", 'if kept["key"] != self._key or (', "if (",
           "test_small_wrongs.py::test_pieces_of_several_sittings_come_back_in_their_order",
           "a job continues from another's state"),
    Mutant("workflows/unfinished.py", 'and not kept["forced"])', ")",
           "test_small_wrongs.py::test_force_begins_again_but_continues_what_it_began",
           "a forced job never continues"),

    # One at a time, and recordings
    Mutant("models/folding.py", "        left.sub_(there)\n", "",
           "test_folding.py::test_it_is_the_same_up_to_rounding", "all of a window's largest have the gradient"),
    Mutant("models/folding.py", "kept is None or not torch.equal(kept[0], weight)", "kept is None",
           "test_folding.py::test_weights_that_have_changed_are_seen", "weights learn, and their kernels do not"),
    Mutant("models/__init__.py", "with _ONE_AT_A_TIME, torch.random", "with torch.random",
           "test_small_wrongs.py::test_one_network_is_built_at_a_time", "networks are built at once"),
    Mutant("graphs.py", "kept.popitem(last=False)", "kept.popitem()",
           "test_small_wrongs.py::test_the_recording_that_was_used_longest_ago_goes", "the newest recording goes"),
    Mutant("graphs.py", "torch.cuda.set_stream(current)", "pass",
           "test_graphs.py::test_a_recording_ends_on_the_callers_stream_whatever_happens",
           "a failed recording leaves its stream"),
    Mutant("graphs.py", "if kept is None or kept[0] != where:", "if kept is None:",
           "test_graphs.py::test_only_networks_that_do_the_same_each_time_are_recorded",
           "a recording outlives its weights"),

    Mutant("bounds/reading.py", "torch.full((), added, dtype=dtype,", "torch.as_tensor(added, dtype=dtype,",
           "test_graphs.py::test_each_way_of_training_is_recorded[ibp]", "certified training is not recorded"),
    Mutant("output.py", "self._before += n if before else 0.0", "self._before += 0.0",
           "test_api.py::test_the_time_left_counts_what_was_done_now", "a run that goes on is never long"),

    # Bounds and ways of training
    Mutant("bounds/layers.py", 'if slopes == "adaptive" else 0.0', 'if slopes == "adaptive" else 1.0',
           "test_bounds.py::test_with_zero_slopes_no_linear_bound_is_looser_than_intervals[0]",
           "slopes of zero are one"),
    Mutant("attacks/sets.py", "_in_all(near & mine, *first)", "_in_all(near & mine, *last)",
           "test_work.py::test_what_is_left_of_an_ensemble_is_foreseen[fast-0.06]",
           "what is left of a cascade counts near images twice"),
    Mutant("bounds/layers.py", "return middle - radius, middle + radius",
           "return middle - 0.9 * radius, middle + radius",
           "test_bounds.py::test_no_point_of_a_ball_leaves_its_bounds[0]", "a lower end is too high"),
    Mutant("bounds/layers.py", "torch.where(crossing, -slope * low,", "torch.where(crossing, -slope * low / 4,",
           "test_bounds.py::test_no_point_of_a_ball_leaves_its_bounds[0]", "the line above a ReLU is too low"),
    Mutant("bounds/layers.py", "torch.zeros_like(settled, dtype=a.dtype), high.amax(2)",
           "torch.zeros_like(settled, dtype=a.dtype), low.amax(2)",
           "test_bounds.py::test_no_point_of_a_ball_leaves_its_bounds[0]", "a pool's upper end is its lower one"),
    Mutant("bounds/reading.py", "lambda x: x.expand(len(x), *shape), apart=False",
           "lambda x: x.expand(len(x), *shape)",
           "test_bounds.py::test_in_l2_a_pixel_that_is_repeated_counts_each_time",
           "a repeated pixel counts as several"),
    Mutant("bounds/trace.py", "if not isinstance(result, torch.Tensor):  #", "if False:  #",
           "test_bounds.py::test_what_has_no_bound_is_said_by_name[split]", "values leave the trace unseen"),
    Mutant("workflows/evaluation/measure.py", "if bool((proved.right[of] & ~right).any())",
           "if not bool((proved.right[of] & ~right).any())",
           "test_bounds.py::test_an_image_proved_and_broken_is_an_error", "what is proved and broken is no error"),
    Mutant("bounds/exact.py", "beyond[open_][row, k], 0.0).max(1)", "0 * low[open_][row], 0.0).max(1)",
           "test_exact.py::test_what_is_decided_is_so[0]", "a value that is not the largest is taken for nearly it"),
    Mutant("bounds/exact.py", "alive: Array = high > low.max(1, keepdims=True)", "alive: Array = low > np.inf",
           "test_exact.py::test_what_is_decided_is_so[1]", "what may be the largest is forgotten"),
    Mutant("bounds/certify.py", "undecided[these], done[these] = left.cpu(), True", "done[these] = True",
           "test_exact.py::test_a_set_is_decided_whole", "what is not decided is taken for broken"),
    Mutant("bounds/fusing.py", "folding.largest(middle - radius), folding", "folding.largest(middle), folding",
           "test_folding.py::test_intervals_of_what_is_pooled_are_the_same_in_one_step", "a lower end that is none"),
    Mutant("methods/bounded.py", "loss = kappa * usual + (1 - kappa) * bounded", "loss = kappa * usual + bounded",
           "test_methods.py::test_a_way_is_its_formula[mtl-ibp-none]", "the bounds' loss has all its weight"),
    Mutant("methods/bounded.py", "bounded = (1 - torch.exp(-q * each)) / q", "bounded = each",
           "test_methods.py::test_a_loss_that_hopeless_images_do_not_rule[none]", "the bounded loss is none"),
    Mutant("methods/bounded.py", "            taken = place\n", "            taken = 0\n",
           "test_methods.py::test_what_is_loose_is_measured_from_the_normalised_images", "images are not normalised"),
    Mutant("ways.py", "if value != self.options[name].usual)", "if value is not None)",
           "test_config.py::test_an_option_of_a_way_that_came_later_leaves_the_key_as_it_was",
           "usual options are in keys"),
    Mutant("inference.py", "drawn(samples * int(options[\"eot\"]), \"attacked\")", "drawn(samples, \"judged\")",
           "test_inference.py::test_an_attack_goes_through_more_draws_and_other_ones", "attacks know the judge's draw"),
    Mutant("inference.py", "((y == label) != others)", "(y == label)",
           "test_inference.py::test_partners_are_of_the_predicted_class_or_of_all_others", "others are its own class"),
    Mutant("experiments/claims.py", "only_a += round(slack * one.measured.n / 100)", "only_a += 0",
           "test_experiments.py::test_two_are_compared_on_the_same_images", "no points are given"),
    Mutant("experiments/claims.py", "p = mcnemar(only_a, only_b) / 2", "p = mcnemar(only_a, only_b)",
           "test_experiments.py::test_two_are_compared_on_the_same_images", "a claim is judged from both sides"),
    Mutant("experiments/plan.py", "needs = (self.trained[begin],) if isinstance(begin, Cell) else ()", "needs = ()",
           "test_experiments.py::test_every_part_comes_after_what_it_needs", "a run does not wait for its beginning"),
    Mutant("experiments/figures.py", "half = _Z * math.sqrt(deviation**2 / len(ones) + images)", "half = 0.0",
           "test_experiments.py::test_an_interval_over_seeds_is_wider_than_their_spread", "no spread over seeds"),
    Mutant("experiments/lines.py", "depth += _opened(line)", "depth += 0",
           "test_experiments.py::test_lines", "values of several lines are read as keys"),
    Mutant("workflows/evaluation/statistics.py", "left += [robust[\"correct\"]] if audited else []", "left += []",
           "test_bounds.py::test_what_an_audit_leaves_of_the_same_images_closes_the_bracket",
           "the bracket forgets the audit"),
    Mutant("methods/trades.py", "x + (_JITTER * noise)", "x + 0 * (_JITTER * noise)",
           "test_methods.py::test_a_way_is_its_formula[trades-none]", "TRADES begins where it has no gradient"),
    Mutant("methods/perturbing.py", "weight.copy_(was)", "pass",
           "test_methods.py::test_weights_are_perturbed_up_the_gradient_in_proportion_and_come_back",
           "weights stay perturbed"),
    Mutant("training.py", "self.model.load_state_dict(self.best)", "pass",
           "test_methods.py::test_overfitting_to_one_step_is_seen_and_undone", "nothing is rolled back"),
    Mutant("world.py", "n * (self.rank + 1) // self.size)", "n * self.rank // self.size + n // self.size)",
           "test_world.py::test_parts_cover_all_once_and_weigh_as_much", "samples are left to no part"),
    Mutant("world.py", "return len(self.range(n)) * self.size / n", "return 1.0",
           "test_world.py::test_parts_cover_all_once_and_weigh_as_much", "a short part weighs as a long one"),
    Mutant("gathering.py", "distributed.all_reduce(slope)", "pass",
           "test_world.py::test_two_ranks_train_what_one_process_does[manifold]",
           "what is mixed into another rank's image gets no gradient"),
    Mutant("training.py", "slopes = [self.ranks.mean(slope) for slope in", "slopes = [slope for slope in",
           "test_world.py::test_a_step_of_every_way_is_that_of_one_process", "each rank perturbs otherwise"),
    Mutant("training.py", "self.ranks.mean(buffer)", "pass",
           "test_world.py::test_ranks_have_the_same_statistics", "running statistics stay each rank's own"),
    Mutant("workflows/parts.py", "(left or not part.idle)", "not part.idle",
           "test_world.py::test_parts_come_to_the_same_in_any_order", "what is not attacked counts as standing"),
    Mutant("workflows/unfinished.py", "self._session.part.lane)", '"")',
           "test_world.py::test_parts_that_run_at_once_keep_pieces_of_their_own",
           "parts write over each other's pieces"),
    Mutant("remote.py", "if hashlib.sha256(data).hexdigest() != entry.sha256:", "if False:",
           "test_sharing.py::test_a_flipped_byte_there_is_refused", "what is fetched is not compared"),
    Mutant("remote.py", "Path(whole).hardlink_to(part)", "Path(part).replace(whole)",
           "test_sharing.py::test_what_is_there_is_not_overwritten", "what is there is written over"),
    Mutant("experiments/claims.py", "(below - mean)", "(mean - below)",
           "test_experiments.py::test_colours_are_compared_image_by_image", "a claim of less is judged as one of more"),
    Mutant("workflows/export/grid.py", "(origin - reach).ceil()", "(origin - reach).floor()",
           "test_export.py::test_rounded_images_stay_within_the_ball", "pixels are rounded out of the ball"),
    Mutant("workflows/export/grid.py", "left > reach * reach", "after > reach * reach",
           "test_export.py::test_rounded_images_stay_within_the_ball", "one pixel too few is rounded back"),
    Mutant("workflows/export/networks.py", "_APART = 1e-5", "_APART = 2.0",
           "test_export.py::test_other_logits_are_noticed", "other logits pass for the model's own"),
)
# fmt: on


# Running tests in a copy


def say(line: str) -> None:
    """A line for whoever runs this."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def copy_sources(to: Path) -> Path:
    """A copy of the package and its tests; its bytecode is known by what it was made from, not by size and age."""
    for name in ("advmix_cli", "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(to / "advmix_cli", quiet=2, invalidation_mode=mode)
    return to


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How tests went: pytest's status (None: out of time), the first that failed, those that passed, what was said."""

    status: int | None
    failed: str = ""
    passed: tuple[str, ...] = ()
    said: str = ""


class _Notes:
    """A pytest plugin that notes what passed and what failed first."""

    def __init__(self) -> None:
        self.failed = ""
        self.passed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid
        if report.when == "call" and report.passed:
            self.passed.append(report.nodeid)


def _run_tests(copy: Path, nodes: Sequence[str], mutated: bool, write: int, output: Path) -> None:
    """In a forked child: run the tests of the copy, and say down the pipe how they went."""
    import pytest

    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.dont_write_bytecode = mutated  # a mutant may be as large and as old as what it replaces: it must leave nothing
    sys.path[:0] = [str(copy)]
    notes = _Notes()
    arguments = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy / 'tmp'}", "--tb=short", *nodes]
    status = int(pytest.main(arguments, plugins=[notes]))
    package = sys.modules.get("advmix_cli")
    if package is None or not str(package.__file__).startswith(str(copy)):
        status, notes.failed = 3, ""
        say(f"the tests ran against {package and package.__file__}, not the copy {copy}")
    sys.stdout.flush()
    os.write(write, json.dumps({"status": status, "failed": notes.failed, "passed": notes.passed}).encode())


class Forked:
    """A child of this process, in which torch is imported already, that runs tests in a copy."""

    def __init__(self, copy: Path, nodes: Sequence[str], mutated: bool, seconds: float) -> None:
        self.copy, self._output = copy, copy / "output.txt"
        self.pipe, write = os.pipe()
        self.until = time.monotonic() + seconds
        self._content = b""
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                os.setsid()
                os.close(self.pipe)
                _run_tests(copy, nodes, mutated, write, self._output)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(write)

    def read(self) -> bool:
        """Take in what it says; whether it has ended."""
        content = os.read(self.pipe, 1 << 16)
        self._content += content
        return not content

    def end(self) -> Outcome:
        """Its outcome; a child that still runs is out of time and killed."""
        late = time.monotonic() >= self.until
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self.pipe)
        said = self._output.read_text(errors="replace") if self._output.exists() else ""
        if not self._content:
            return Outcome(None if late else 3, said=said)
        found = json.loads(self._content)
        return Outcome(found["status"], found["failed"], tuple(found["passed"]), said)


def run_each(
    copies: Sequence[Path], wanted: Sequence[tuple[Mutant | None, Sequence[str]]], seconds: float
) -> Iterator[tuple[int, Outcome, float]]:
    """(place in `wanted`, outcome, seconds) of each as it ends: as many at a time as there are copies."""
    free, waiting, running = list(copies), list(enumerate(wanted)), dict[int, tuple[int, Forked, Path, str, float]]()
    try:
        while waiting or running:
            while waiting and free:
                place, (mutant, nodes) = waiting.pop(0)
                copy, original = free.pop(), ""
                if mutant is not None:
                    file = copy / "advmix_cli" / mutant.file
                    original = file.read_text()
                    file.write_text(mutant.plant(original))
                child = Forked(copy, nodes, mutant is not None, seconds)
                running[child.pipe] = place, child, copy, original, time.monotonic()
            patience = max(0.0, min(child.until for _, child, *_ in running.values()) - time.monotonic())
            ready, _, _ = select.select(list(running), [], [], patience)
            for pipe in list(running):
                place, child, copy, original, began = running[pipe]
                if (pipe in ready and child.read()) or time.monotonic() >= child.until:
                    outcome = child.end()
                    mutant = wanted[place][0]
                    if mutant is not None:
                        (copy / "advmix_cli" / mutant.file).write_text(original)
                    del running[pipe]
                    free.append(copy)
                    yield place, outcome, time.monotonic() - began
    finally:
        for _, child, *_ in running.values():  # only where this ends before they do
            child.end()


# What comes of it


def check_table(mutants: Sequence[Mutant]) -> list[str]:
    """What is wrong with the table itself."""
    found = []
    for number, mutant in enumerate(mutants, 1):
        try:
            mutant.plant((ROOT / "advmix_cli" / mutant.file).read_text())
        except (OSError, ValueError, SyntaxError) as error:
            found.append(f"{number} {mutant.file}: {error}")
    return found


def divide(mutants: Sequence[Mutant], count: int) -> list[list[str]]:
    """All tests that are named, in at most `count` parts; those of one file stay together, for what they share."""
    files: dict[str, dict[str, None]] = {}
    for mutant in mutants:
        for node in mutant.nodes:
            files.setdefault(node.partition("::")[0], {})[node] = None
    parts: list[list[str]] = [[] for _ in range(count)]
    for nodes in sorted(files.values(), key=len, reverse=True):
        min(parts, key=len).extend(nodes)
    return [part for part in parts if part]


def pass_unmutated(mutants: Sequence[Mutant], copies: Sequence[Path]) -> bool:
    """Whether all named tests pass as they are, and of each entry's at least one is no mere skip."""
    passed: list[str] = []
    for _, outcome, _ in run_each(copies, [(None, part) for part in divide(mutants, len(copies))], SECONDS_UNMUTATED):
        passed += outcome.passed
        if outcome.status != 0:
            say(outcome.said)
            say(f"without any mutant {outcome.failed or 'the tests'} failed (status {outcome.status})")
            return False
    idle = [m for m in mutants if not any(one.startswith(node) for node in m.nodes for one in passed)]
    for mutant in idle:
        say(f"none of the tests of {mutant.file}, {mutant.wrong}, ran: {', '.join(mutant.nodes)}")
    return not idle


def judge(outcome: Outcome) -> tuple[bool, str]:
    """Whether the mutant was killed, and what to say."""
    if outcome.status is None:
        return False, "OUT OF TIME, which shows nothing"
    if outcome.status == 1 and outcome.failed:
        return True, f"killed by {outcome.failed.removeprefix('tests/')}"
    if outcome.status == 0:
        return False, "SURVIVED"
    return False, f"ERROR, the tests did not run (status {outcome.status})\n{outcome.said}"


def run(numbered: Sequence[tuple[int, Mutant]], jobs: int) -> int:
    """Try the mutants; the exit status."""
    began, mutants = time.monotonic(), [mutant for _, mutant in numbered]
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "ADVMIX_TEST_DEVICE": "cpu"}
    for name in ("torch", "pytest", "numpy", "safetensors.torch", "typer", "filelock"):  # once, not in each child
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [copy_sources(Path(folder).resolve() / str(number)) for number in range(jobs)]
        if not pass_unmutated(mutants, copies):
            return 1
        for one, other in itertools.permutations(copies, 2):  # what one has compiled, the others need not
            if (one / "tests/__pycache__").is_dir():
                shutil.copytree(one / "tests/__pycache__", other / "tests/__pycache__", dirs_exist_ok=True)
        say(f"unmutated, the tests pass ({time.monotonic() - began:.0f} s)")
        lines: dict[int, str] = {}
        shown = killed = 0
        for place, outcome, seconds in run_each(copies, [(m, m.nodes) for m in mutants], SECONDS):
            number, mutant = numbered[place]
            dead, text = judge(outcome)
            killed += dead
            lines[place] = f"{number:3} {mutant.file}: {mutant.wrong}: {text} ({seconds:.1f} s)"
            while shown in lines:
                say(lines[shown])
                shown += 1
    say(f"{killed} of {len(mutants)} killed, {len(mutants) - killed} not, {time.monotonic() - began:.0f} s in all")
    return 0 if killed == len(mutants) else 1


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Plants small wrongs, one at a time: for each some test must fail.")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--only", default="", metavar="N[,N]", help="these alone, by their numbers in the list")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at a time (2)")
    chosen = parser.parse_args()
    numbered = list(enumerate(MUTANTS, 1))
    if chosen.only:
        wanted = {int(number) for number in chosen.only.split(",")}
        if not wanted <= {number for number, _ in numbered}:
            parser.error(f"numbers are from 1 to {len(numbered)}")
        numbered = [(number, mutant) for number, mutant in numbered if number in wanted]
    if chosen.list:
        for number, mutant in numbered:
            say(f"{number:3} {mutant.file}: {mutant.wrong}: {', '.join(mutant.nodes)}")
        return 0
    problems = check_table(MUTANTS)
    for problem in problems:
        say(f"the table is not of this code: {problem}")
    return 1 if problems else run(numbered, max(chosen.jobs, 1))


if __name__ == "__main__":
    sys.exit(main())
