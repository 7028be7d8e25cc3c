"""What the words of a series' name say: weighting, another kind of image, contrast agent or none.

Names are typed by people in many languages: ``t1_se_tra nach KM``, ``AX T1 SANS INJ``, ``T1 +C``.
They are brought to one form first (`normalised`), then held against the tables below, which are all
there is to extend. The words themselves stay here: what comes out is of a fixed vocabulary.

Where the words come from: vendors' names of sequences (Siemens, MRI Acronyms, 2018), the series
names of UPENN-GBM and PPMI, and protocols in the languages named beside the lines.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, Literal

Weighting = Literal["t1", "t2", "flair"]

WEIGHTINGS: Final[Mapping[Weighting, tuple[str, ...]]] = MappingProxyType(
    {
        "t1": (
            r"[es]?t1(?:w|wi|n|weighted)?",
            "mp ?rage",
            "mp2rage",
            "bravo",
            "f?spgr",
            "vibe",
            "thrive",
            "lava",
        ),
        "t2": (r"[es]?t2(?:w|wi|weighted)?",),
        "flair": ("flair", r"flair\w+", "dark ?fluid", "t2f", "fla", "fir"),
    }
)
OTHER_KINDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "a localiser or calibration": (
            r"locali[sz]er\w*", "loc", r"\w*scout\w*", "survey", "3 ?pl", "(?:3|three) ?plane",
            "planscan", "smartbrain", r"calib\w*", "asset cal", "ref ?scan", r"\w*field ?map\w*",
            "b0 ?map", "shim",
        ),
        "diffusion": (
            r"dwi\w*", r"dti\w*", "e?adc", "diff", r"diffus\w*", r"difus\w*", "trace", "tracew",
            "tensor", r"b ?\d{3,4}", "resolve", "дви",
        ),
        "perfusion": (
            r"perf\w*", "pwi", "dsc", "dce", r"n?r?(?:el)?cbv", r"r?(?:el)?cbf", "mtt", "ttp",
            "tmax", "p?c?asl", "ktrans", "dynamic", "dyn", "dynamisch",
        ),
        "functional imaging": ("bold", r"f ?mri\w*", "resting state"),
        "angiography": (
            r"\w*tof", "mra", "mrv", "mr[av]ng?", r"angio\w*", r"venogra\w*", "twist", "tricks",
            "inhance", "pca", "(?<!ac )pc",
        ),
        "susceptibility": (
            r"swi\w*", "swan", r"t2 ?(?:\*|star)\w*", r"venbold", "medic", "merge", "hemo",
            r"t2w? (?:\w+ )*(?:eg|gre|ffe|fl2d)", "qsm", "pha", "phase",
        ),
        "a fluid image of nerves": ("ciss", r"fiesta\w*", "b ?ffe", "true?fisp", "trufi"),
        "fat or double inversion": ("stir", r"double (?:ir|inversion)", "psir"),
        "spectroscopy": ("svs", "csi", "mrs", r"spectro\w*"),
        "a map of a quantity": ("t[12] ?maps?", "molli", "relaxometry"),
        "a projection": ("mip", "minip", "mnip", "projection"),
        "a subtraction": (r"sub(?! ?\d)", r"subtra\w*", r"soustra\w*", r"sustra\w*", "subtr"),
        "a mask, report or picture": (
            r"mask\w*", r"segment\w*", "report", r"screen ?\w*", "secondary capture", "overlay",
        ),
        "the spine": (r"\w*spine", "hws", "bws", "lws", "cervical", "lumbar", "columna"),
    }
)  # fmt: skip
"""Series that are none of the four, by what they are; the first that is found is said."""
PROTON_DENSITY: Final = ("pdw?", "proton ?density", "dp", "densite protons?")

AGENTS: Final = (
    "dotarem", "clariscan", "magnevist", "multihance", "omniscan", "prohance", "vueway", "elucirem",
    "artirem", "dtpa", "dota", r"gad\w*", "gd", "eovist", "primovist", "ablavar", "vasovist",
    "optimark", "magnetolux", "magnegita", "dotagraf", "cyclolux", "bopta", "feraheme",
    "ferumoxytol",
)  # fmt: skip
"""Agents by their names and brands."""
_AGENT: Final = "|".join((*AGENTS, r"contrast\w*", r"kontrast\w*", "km", r"inj\w*", "agent"))
BEFORE_AGENT: Final = (
    r"pre(?! ?op)", r"pre ?contra\w*", "without", "noncontrast", r"(?<!w )w ?o",
    "t1n", "plain", "unenhanced", "(?:c|gd|gad|km|k) minus",
    rf"(?:no[nt]?|keine?) (?:iv )?(?:{_AGENT}|enhanc\w*)",
    rf"(?:before|prior to) (?:iv )?(?:{_AGENT})",
    rf"(?:{_AGENT}) ?(?:free|frei)", r"kontrast\w*frei",
    "ohne", "nativ[ea]?", "vor (?:km|kontrast|gd)",                         # German
    "sans", "avant", "natif",                                               # French
    "sin", "simple", "s contraste",                                         # Spanish
    "senza", "basale", "prima",                                             # Italian
    "sem", "antes",                                                         # Portuguese
    "zonder", "blanco",                                                     # Dutch
    "utan", "ej", "uden", "uten",                                           # Nordic
    "bez", "fara", "kontrastsiz", "без", r"до контраст\w*", "χωρις",        # Slavic and others
)  # fmt: skip
AFTER_AGENT: Final = (
    *AGENTS,
    r"post(?! ?op)", r"post ?\w*contra\w*", r"post(?:gd|gad\w*)", r"contrast\w*", "ce", "enhanced",
    "civ", r"(?<=t1 )c", r"(?<=t1w )c", r"(?<!\S)(?:c \+|\+ [ck])(?!\S)",
    r"\+ gd", r"(?<=t1 )\+$", r"(?<=t1w )\+$",
    r"kontrast?\w*", r"kontrasc\w*", "km", "kmit",                         # German and others
    r"inj\w*", "apres", "cte", "despues", "pos",                            # Romance
    "mdc", "dopo", "contrasto",                                             # Italian
    "efter", "etter", "tehoste", r"контраст\w*",                            # Nordic, Russian
)  # fmt: skip
WITHOUT_SPACES: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("造影前", "増強前", "增强前", "非造影", "無造影", "造影なし"), "plain")
    | dict.fromkeys(("単純", "平扫"), "plain")
    | dict.fromkeys(("造影", "増強", "增强"), "ce")
)
"""Words of a script that writes no spaces, and what stands for them; longer ones come first."""
WITH_AND_WITHOUT: Final = (
    r"w ?wo", r"w w ?o", r"with (?:and|&) without", r"mit und ohne", r"plain (?:\+ )?ce",
)  # fmt: skip
"""An examination before and after: it says nothing about one series."""
NO_AGENT: Final = (
    "", "n", "no", "non", "none(?: given| administered| used)?", "nil", "null", "na", "n a", "0",
    "not (?:given|administered|applied|used|injected)", r"keine?\w?", "nein", "nicht gegeben",
    r"aucune?", r"ningun[oa]", r"nessuno?", "geen", r"ingen\w*", "brak", "нет", "无", "なし",
    r"(?:.* )?(?<!\d )0(?: 0+)? ?(?:ml|cc|mmol)",
)  # fmt: skip
"""What is typed into the agent's tag when there was none, besides the words for "before"."""
DOSES: Final = (r"\d*[1-9]\d*(?: \d+)? ?(?:ml|cc|mmol)",)
YES: Final = ("yes", "y", "ja", "oui", "iv", "anonymized")
"""What is typed there when there was one; the last is what de-identification leaves of any."""

_LONGEST: Final = 256
"""Letters of a name that are read: the tags allow 64, a stranger's file may hold any number."""
_MINUS: Final = re.compile(r"\b(c|gd|gad|km|k)-(?=\s|$)")
_MINUS_BEFORE: Final = re.compile(r"(?<=\s)-\s?(c|k)(?=\s|$)|(?<=\s)-(gd|gad|km)(?=\s|$)")
_SEPARATORS: Final = re.compile(r"[\s_\-/\\.,:;()\[\]{}=|&'\"^~#%<>!?@]+")
_GLUED: Final = re.compile(
    r"\b([es]?t[12]w?)(?=(?:post|pre|ce|gd|gad\w*|km|flair\w*|flash|fl|tse|fse|se|gre|ffe|fs|ir|spc"
    r"|space|mpr\w*|ax|sag|cor|tra|c|map|star)(?:\b|\d))"
)


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a name says; None and False where it says nothing.

    Attributes:
        weightings: each of T1, T2 and FLAIR that is named.
        other: which other kind of series it names, in words of `OTHER_KINDS`.
        proton_density: it names proton density.
        agent: after contrast agent (True), before or without (False).
    """

    weightings: frozenset[Weighting]
    other: str | None
    proton_density: bool
    agent: bool | None

    @property
    def silent(self) -> bool:
        """Whether nothing tells the kind of image."""
        return not (self.weightings or self.other or self.proton_density)


def read_words(text: str) -> Words:
    """Find the words of the tables in a name."""
    plain = normalised(text)
    other = next((kind for kind in OTHER_KINDS if _pattern(OTHER_KINDS[kind]).search(plain)), None)
    return Words(
        weightings=frozenset(
            name for name, words in WEIGHTINGS.items() if _pattern(words).search(plain)
        ),
        other=other,
        proton_density=bool(_pattern(PROTON_DENSITY).search(plain)),
        agent=_agent(plain),
    )


def _agent(plain: str) -> bool | None:
    """The words for "without" stand before those for the agent, so they count first."""
    if _pattern(WITH_AND_WITHOUT).search(plain):
        return None
    if _pattern(BEFORE_AGENT).search(plain):
        return False
    return True if _pattern(AFTER_AGENT).search(plain) else None


def names_agent(tag: str | None) -> bool | None:
    """Tell what the agent's own tag says: given, none, or nothing (None).

    A text of words that are in no table counts as given, and `knows_agent` tells them apart. What
    denies an agent that was named before, as ``Gadovist, pre-filled`` seems to, does not count.
    """
    if tag is None:
        return None
    plain = normalised(tag)
    if re.fullmatch("|".join(NO_AGENT), plain):
        return False
    denied = _pattern(BEFORE_AGENT).search(plain)
    return not denied or bool(_pattern(AGENTS + DOSES).search(plain, 0, denied.start()))


def knows_agent(tag: str | None) -> bool:
    """Tell whether the agent's tag holds an agent, a dose or a yes, and nothing that denies it."""
    plain = normalised(tag or "")
    given = _pattern(AFTER_AGENT + DOSES + YES).search(plain)
    return bool(given) and not _pattern(BEFORE_AGENT).search(plain)


def normalised(text: str) -> str:
    """Bring a name to one form: lower case, no accents, words apart by one space.

    A plus sign is a word of its own, and what is glued to T1 or T2 is taken off:
    ``T1+C`` gives ``t1 + c``, ``3DT1post`` gives ``3d t1 post``.
    """
    bare = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text[:_LONGEST].lower())
        if not unicodedata.combining(letter)
    )
    for word, meaning in WITHOUT_SPACES.items():
        bare = bare.replace(word, f" {meaning} ")
    bare = _MINUS_BEFORE.sub(r"\1\2 minus", _MINUS.sub(r"\1 minus", bare))
    bare = _SEPARATORS.sub(" ", bare.replace("+", " + "))
    bare = re.sub(r"\b([23]d)(?=[a-z])", r"\1 ", bare)
    return " ".join(_GLUED.sub(r"\1 ", bare).split())


@cache
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)")
