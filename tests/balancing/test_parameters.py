"""Parameters that a method of balancing lacks."""

from __future__ import annotations

import pytest

from mtl_nlp.balancing.parameters import check_known


def test_parameters_of_the_method_are_accepted():
    check_known("cagrad", ["c"], ["c"], "loss.gradients_kwargs")
    check_known("pcgrad", [], [], "loss.gradients_kwargs")


def test_other_parameters_are_refused_with_the_section_and_a_hint():
    with pytest.raises(ValueError, match=r"^weighting_kwargs\.alhpa: gradnorm has no such .*Did you mean 'alpha'\?"):
        check_known("gradnorm", ["alpha", "alhpa"], ["alpha", "learning_rate"], "weighting_kwargs")
    with pytest.raises(ValueError, match=r"^loss\.gradients_kwargs\.x: pcgrad .* pcgrad has no parameters\.$"):
        check_known("pcgrad", ["x"], [], "loss.gradients_kwargs")
