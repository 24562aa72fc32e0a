"""Texts on which tokenizers go wrong."""

import random
import unicodedata

from tokenizer_folders import BOS, EOS

TEXTS = [
    "",
    " ",
    "\n\t \r\n",
    "a photo of a cat",
    "A Photo Of A CAT!!!",
    "hello! wow!! !",
    "don't they're we've I'm you'll he'd it's 's 't'Re I'LL",
    "runs   of     spaces\n\nand\tnewlines\r\nhere",
    "no\u00a0break\u2003em\u3000ideographic\u200bzero\ufeffwidth",
    "1234567890 3.14 10,000 ½ Ⅷ ٣ ४",
    "(a:1.2) [b] {c} <lora:x:1> a_b-c/d\\e|f~g`h^i",
    "...---!!!???;;;",
    "naïve café Ångström",
    unicodedata.normalize("NFD", "naïve café Ångström e\u0301\u0323"),
    unicodedata.normalize("NFKD", "ﬁne ﬀ ① ㎏ ｆｕｌｌ"),
    "İstanbul ISTANBUL ẞ ß ǅ Σας ΟΔΟΣ",
    "一只可爱的猫坐在桌子上",
    "日本語のプロンプト、富士山",
    "한국어 프롬프트 각",
    unicodedata.normalize("NFD", "한국어 프롬프트"),
    "सुंदर पहाड़ों पर सूर्यास्त",
    "غروب الشمس الجميل فوق الجبال",
    "שקיעה יפה עם נִקּוּד",
    "красивый закат",
    "😀 🎨🌄 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇨🇳",
    "a\u200db\u200cc\u2060d",
    "\u202eright to left\u202c",
    "\x00\x01\x07\x1b[31m\x7f\x85\x9f control",
    "nul\x00inside",
    "\ufffd \ufffe \uffff \U0010ffff \ue000",
    "z\u0351\u0352\u0353alg\u0334\u0335o",
    "<|endoftext|>",
    "a cat<|endoftext|>a dog",
    "a <|ENDOFTEXT|> b <|StartOfText|>",
    "<|startoftext|> twice <|startoftext|><|endoftext|>",
    "<|endoftext|",
    " <|endoftext|> ",
    "</w> a</w> !</w>",
    "<cat-toy> on <CAT-TOY>s",
    "<pad> <PAD> a<pad>b <toy> <TOY>s",
    "\u2028line\u2029paragraph\x0bvertical\x0cfeed",
    "ａ！？",
    "''s 'x ' '' 's's",
    "e" + "\u0301" * 40,
    "x" * 300,
    "many words " * 60,
    "!" * 90,
    "界" * 90,
    "😀" * 40,
    "a photo of " + "a very " * 70 + "small cat",
]


def random_texts(count):
    pieces = [piece for text in TEXTS for piece in (text[:12], text[-7:])]
    pieces += ["'s", "'LL", " ", "\n", "\u200d", "\u0301", "9", "!", EOS, BOS, "Ж", "猫", "🎨"]
    pick = random.Random(0)
    for _ in range(count):
        chosen = [pick.choice(pieces) for _ in range(pick.randint(1, 14))]
        yield pick.choice(["", " "]).join(chosen)
        yield "".join(chr(pick.randrange(pick.choice([0x250, 0xD800]))) for _ in range(9))
