"""Which series is which contrast, and what an input holds before anything is done with it.

`rules` judges one series by its tags, `choose` takes one for each contrast, `picture` looks at the
images themselves and may contradict, `inspection` puts it all into one report.
"""

from model_core.recognition.choose import Candidate, Choice, choose
from model_core.recognition.rules import Verdict, judge

__all__ = ["Candidate", "Choice", "Verdict", "choose", "judge"]
