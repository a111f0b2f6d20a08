"""English stop words: words of grammar, which say how a caption speaks rather than what it shows.

A closed list: articles, pronouns, forms of be, have and do, modal verbs, prepositions, conjunctions and a few adverbs, as in
Porter's list for Snowball; contractions are spelled as `wordcount.tokens` gives them. The last line has the pieces of contractions
in captions that were split into words before, or lost their apostrophes: `it 's`, `isn t`. Numbers beyond `one` are no stop words.
"""

from __future__ import annotations

_ENGLISH = """
a an the this that these those such same other another some any each both few more most all own no not nor only
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
it its itself they them their theirs themselves one who whom whose which what
am is are was were be been being have has had having do does did doing
can cannot could will would shall should must might
about above across after against along among around as at before behind below beneath beside between by down during for from
in inside into near next of off on onto out outside over since through to toward towards under until up upon with within without
and but or if because while although though than
again also away back ever here how just now once so still then there too very when where why yet
i'm i've i'll i'd we're we've we'll we'd you're you've you'll you'd he's he'll he'd she's she'll she'd it's it'll it'd
they're they've they'll they'd that's that'll there's here's who's what's where's how's let's
isn't aren't wasn't weren't haven't hasn't hadn't don't doesn't didn't can't couldn't won't wouldn't shan't shouldn't mustn't
s t d m re ve ll n't
"""
STOP_WORDS = frozenset(_ENGLISH.split())
