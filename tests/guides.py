"""All that a user is told: the README, and the topics of `eos help`."""

from eos_tui.topics.topics import TOPICS

from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {topic.name: topic.markdown() for topic in TOPICS}
GUIDES = "\n\n".join([README, *TEXTS.values()])
