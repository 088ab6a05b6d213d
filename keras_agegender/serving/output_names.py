"""How the outputs of an export are named; of one extra head, see `head.ANSWER`."""

from __future__ import annotations

# Field of `Decoded` -> name of the exported output.
DECODED_NAMES = {
    "age_group": "age_group",
    "age_probabilities": "age_group_probabilities",
    "heads_agree": "heads_agree",
    "gender": "gender_id",
    "gender_probability": "male_probability",
    "age_years": "age_years",
    "median_age_group": "median_age_group",
}
# The same of `AnswerSets`: bool masks, a column for each age group or gender.
SET_NAMES = {"age_group": "age_group_set", "gender": "gender_set"}
