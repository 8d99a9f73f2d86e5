"""What libraries say that means nothing here is not shown, and all else is."""

import warnings

from llmkit.models.loading import quiet


def test_the_warning_that_pissa_goes_with_no_other_adapter_is_not_shown() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet()
        warnings.warn("PiSSA changes the base weights of the model and ...", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(each.message) for each in shown] == ["another"]
