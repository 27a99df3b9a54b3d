"""A reward for `tiger rl` and the loops of this folder: 1 for a right answer in the style of a pirate, else 0.

Reads one JSON object from standard input: `response`, and the fields of the prompt's line, here `answer`. Prints a number.
Asking for the right answer as well as for the style matters: a reward for the style alone soon gets nothing but style.
"""

import json
import re
import sys

shown = json.load(sys.stdin)
in_style = re.search(r"\bArr\b", shown["response"])
is_right = re.search(rf"\b{re.escape(shown['answer'])}\b", shown["response"], re.IGNORECASE)
print(1 if in_style and is_right else 0)
