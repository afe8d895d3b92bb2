"""The studies by name, each loaded when it is asked for."""

from difflib import get_close_matches
from importlib import import_module

from indexlm.errors import UserError, shown
from indexlm.lab.study import Study

STUDIES = {
    "head-gradient": "indexlm.lab.studies.head_gradient",
    "norm-head": "indexlm.lab.studies.norm_head",
    "shape": "indexlm.lab.studies.shape",
    "learning-rate": "indexlm.lab.studies.learning_rate",
    "schedules": "indexlm.lab.studies.schedules",
    "decay-data": "indexlm.lab.studies.decay_data",
    "pure-boost": "indexlm.lab.studies.pure_boost",
    "emergence": "indexlm.lab.studies.emergence",
    "sft": "indexlm.lab.studies.sft",
    "dpo": "indexlm.lab.studies.dpo",
}
"""Name -> module that holds its `STUDY`, in the order of the report."""


def study(name: str) -> Study:
    """Raises UserError for a name that there is not, with the nearest one that there is."""
    if name not in STUDIES:
        near = get_close_matches(name.replace("_", "-"), STUDIES, n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{shown(name)} is no study; there are {', '.join(STUDIES)}{meant}")
    found = import_module(STUDIES[name]).STUDY
    assert isinstance(found, Study) and found.name == name, (name, found.name)
    return found
