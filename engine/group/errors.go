package group

import "errors"

// Refusals of a request about a group, in the protocol's own words.
var (
	// ErrUnknownMemberID says that the group has no such member.
	ErrUnknownMemberID = errors.New("group: unknown member id")
	// ErrMemberIDRequired tells a new dynamic member to join again with the id that it was given.
	ErrMemberIDRequired = errors.New("group: member id required")
	// ErrFencedInstanceID says that a newer member has taken over the group instance id.
	ErrFencedInstanceID = errors.New("group: fenced instance id")
	// ErrIllegalGeneration says that the request is of another generation than the group.
	ErrIllegalGeneration = errors.New("group: illegal generation")
	// ErrRebalanceInProgress tells the member to join again.
	ErrRebalanceInProgress = errors.New("group: rebalance in progress")
	// ErrInconsistentProtocol says that the member's protocols are none that all members support.
	ErrInconsistentProtocol = errors.New("group: inconsistent group protocol")
	// ErrInvalidSessionTimeout says that the session timeout is out of the broker's range.
	ErrInvalidSessionTimeout = errors.New("group: invalid session timeout")
	// ErrGroupMaxSizeReached says that the group has as many members as group.max.size allows.
	ErrGroupMaxSizeReached = errors.New("group: max size reached")
	// ErrInvalidGroupID says that the group id is empty where it must not be.
	ErrInvalidGroupID = errors.New("group: invalid group id")
	// ErrGroupIDNotFound says that there is no such group.
	ErrGroupIDNotFound = errors.New("group: group id not found")
	// ErrNonEmptyGroup says that the group cannot be deleted while it has members.
	ErrNonEmptyGroup = errors.New("group: group is not empty")
	// ErrPartlyDeleted says that some offsets of a deleted group could not be deleted with it.
	ErrPartlyDeleted = errors.New("group: not all offsets could be deleted")
	// ErrSubscribedToTopic says that offsets of a topic cannot be deleted while the group reads it.
	ErrSubscribedToTopic = errors.New("group: group is subscribed to the topic")
	// ErrOffsetMetadataTooLarge says that the text kept with an offset exceeds offset.metadata.max.bytes.
	ErrOffsetMetadataTooLarge = errors.New("group: offset metadata too large")
)

// Reading and writing records of __consumer_offsets.
var (
	// ErrUnknownRecord says that the record is of a kind that this package does not keep.
	ErrUnknownRecord = errors.New("group: unknown kind of record")
	// ErrRecordTooLarge says that a field is longer than the record's format can say.
	ErrRecordTooLarge = errors.New("group: field too long for a record")
	// ErrCorruptRecord says that the bytes are not the record that they claim to be.
	ErrCorruptRecord = errors.New("group: corrupt record")
)
