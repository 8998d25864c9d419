from __future__ import annotations

import inspect

import pytest

from mtl_nlp import errors
from mtl_nlp.errors import CommandError, MtlNlpError, needs_extra

ERRORS = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_derives_from_the_common_base_and_value_error(error):
    assert issubclass(error, MtlNlpError)
    assert issubclass(error, ValueError)


def test_missing_package_of_an_extra_is_named_with_the_install_command():
    message = r"no_such_package is not installed: pip install 'mtl_nlp\[onnx\]'"
    with pytest.raises(CommandError, match=message), needs_extra("onnx"):
        import no_such_package  # noqa: F401
