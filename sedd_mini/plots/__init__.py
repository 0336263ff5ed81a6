"""The style that all figures share, and the figures that chapters draw: one file a subject.

A chapter writes `from sedd_mini import plots`, then `plots.show_worlds(...)`; `plots.plt` is
matplotlib's own. What several subjects need stands in style.py, which alone the others import.
"""
# ruff: noqa: F401 (imported for the chapters)

import matplotlib.pyplot as plt

from sedd_mini.plots.beyond import (
    show_along,
    show_epochs,
    show_pictures,
    show_search,
    show_sizes,
    show_two_copies,
)
from sedd_mini.plots.chains import show_edits, show_one_hidden_word, show_states, show_two_lamps
from sedd_mini.plots.conditioning import show_conditions, show_fillings, show_gap_patterns
from sedd_mini.plots.full_size import (
    ON_WHITE,
    show_memory,
    show_roofline,
    show_three_runs,
    show_two_runs,
)
from sedd_mini.plots.judging import (
    show_draws,
    show_frontier,
    show_gamed,
    show_pairs,
    show_two_directions,
)
from sedd_mini.plots.losses import show_tangent, show_wall
from sedd_mini.plots.network import (
    show_awake,
    show_half_a_block,
    show_influence,
    show_network,
    show_turns,
)
from sedd_mini.plots.opening import film, show_frame, show_map
from sedd_mini.plots.ratios import (
    show_contest,
    show_questions,
    show_ratio_cases,
    show_ratios_on_a_line,
    show_single_ratios,
    show_targets,
)
from sedd_mini.plots.rows import (
    show_bars,
    show_parts,
    show_scatter,
    show_seeds,
    show_shares,
    show_stacked,
)
from sedd_mini.plots.sampling import (
    show_agreement,
    show_error_curves,
    show_false_improvement,
    show_quality_against_calls,
    show_stretch,
)
from sedd_mini.plots.style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    plain_ticks,
    spread_labels,
    use_style,
)
from sedd_mini.plots.texts import show_packing, show_pieces, show_tokens
from sedd_mini.plots.training import (
    show_cost_by_rate,
    show_learning,
    show_losses,
    show_masking_rates,
    show_raw_and_averaged,
)
from sedd_mini.plots.worlds import show_worlds
