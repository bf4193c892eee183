package catalog

import (
	"encoding/json"
	"fmt"
)

// commandVersion is the version of the encoded form: [version, kind, JSON…].
const commandVersion = 1

// EncodeCommand writes a command for a log.
func EncodeCommand(cmd Command) ([]byte, error) {
	body, err := json.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("catalog: encode command: %w", err)
	}
	return append([]byte{commandVersion, byte(cmd.kind())}, body...), nil
}

// DecodeCommand reads what [EncodeCommand] wrote.
func DecodeCommand(b []byte) (Command, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("%w: %d bytes", ErrUnknownCommand, len(b))
	}
	if b[0] != commandVersion {
		return nil, fmt.Errorf("%w: version %d", ErrUnknownCommand, b[0])
	}
	switch commandKind(b[1]) {
	case kindSetCluster:
		return decodeAs[SetCluster](b[2:])
	case kindCreateTopics:
		return decodeAs[CreateTopics](b[2:])
	case kindDeleteTopics:
		return decodeAs[DeleteTopics](b[2:])
	case kindCreatePartitions:
		return decodeAs[CreatePartitions](b[2:])
	case kindAlterConfigs:
		return decodeAs[AlterConfigs](b[2:])
	case kindAllocateProducerIDs:
		return decodeAs[AllocateProducerIDs](b[2:])
	case kindRegisterBroker:
		return decodeAs[RegisterBroker](b[2:])
	case kindAssignDirs:
		return decodeAs[AssignDirs](b[2:])
	case kindFenceBroker:
		return decodeAs[FenceBroker](b[2:])
	case kindUnfenceBroker:
		return decodeAs[UnfenceBroker](b[2:])
	case kindStopBroker:
		return decodeAs[StopBroker](b[2:])
	case kindUnregisterBroker:
		return decodeAs[UnregisterBroker](b[2:])
	case kindChangeISR:
		return decodeAs[ChangeISR](b[2:])
	case kindElectLeaders:
		return decodeAs[ElectLeaders](b[2:])
	case kindReassign:
		return decodeAs[Reassign](b[2:])
	case kindSetFeatures:
		return decodeAs[SetFeatures](b[2:])
	}
	return nil, fmt.Errorf("%w: kind %d", ErrUnknownCommand, b[1])
}

func decodeAs[C Command](body []byte) (Command, error) {
	var c C
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("catalog: decode command: %w", err)
	}
	return c, nil
}
