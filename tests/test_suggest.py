"""What messages say of names: the one that was probably meant, and all there are."""

import pytest

from fastdeploy_diffusion.suggest import did_you_mean, list_choices

PRECISIONS = ("fp32", "fp16", "bf16")
SYNONYMS = {"half": "fp16", "double": "fp64", "brain-float": "bf16"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("fp31", "fp32"),
        (" FP16 ", "fp16"),
        ("half", "fp16"),
        ("Brain_Float", "bf16"),
        ("double", None),  # it means something, which is not allowed here
        ("nonsense", None),
        (16, None),
    ],
)
def test_the_nearest_name_or_what_a_synonym_means_is_proposed(given, meant):
    wanted = f"did you mean {meant!r}?" if meant else ""
    assert did_you_mean(given, PRECISIONS, SYNONYMS) == wanted


def test_choices_in_a_sentence():
    assert list_choices(PRECISIONS) == "fp32, fp16 or bf16"
    assert list_choices(["fp32"]) == "fp32"
