"""`unseen compare items.jsonl --hardness grade`: are easy training items enough for hard ones?"""
