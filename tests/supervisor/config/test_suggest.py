from mcpd.config.suggest import MAX_NAMED, did_you_mean, names_there


def test_close_words_are_proposed():
    assert did_you_mean("Prot", ["port", "host"]) == "did you mean 'port'?"
    assert did_you_mean("zzz", ["port", "host"]) is None


def test_names_that_there_are_follow_the_one_that_was_meant():
    assert names_there("tiem", ["time", "notes"]) == "did you mean 'time'? there are time, notes"
    assert names_there("zzz", ["time"]) == "there are time"
    assert names_there("zzz", []) == "there is none"
    assert names_there("zzz", [f"a{n}" for n in range(MAX_NAMED + 1)]).endswith(f"a{MAX_NAMED - 1}, …")
