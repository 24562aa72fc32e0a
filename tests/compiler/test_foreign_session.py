import pytest
from engine_programs import CASES, draw_feeds

from fastdeploy_diffusion.compiler.foreign_session import ForeignSession
from fastdeploy_diffusion.errors import EngineError, EngineUnavailableError


def test_a_session_of_another_machine_has_a_signature_and_no_numbers():
    case = CASES["attention"]
    program = case.program("attention")
    session = ForeignSession("tensorrt", program, "sm86", "this machine has no NVIDIA GPU")
    assert list(session.inputs.values()) == list(case.inputs)
    with pytest.raises(EngineError, match="input 'sample', 'context' was not"):
        session.run()
    with pytest.raises(EngineUnavailableError, match=r"built for sm86 and .*: this machine has no"):
        session.run(**draw_feeds(case, 0))
    session.close()
