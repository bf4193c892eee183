package segment

// What can be wrong with the files of a log directory, in words. An open says them in the log, and what looks at the
// files of a server that does not run says the same, so that one can be searched for by the other.
const (
	SaidDamaged        = "damaged records: they are not served, what lies around them is"
	SaidTornEnd        = "the end of a log is incomplete, as a crash leaves it behind what was acknowledged: it is cut"
	SaidDamagedEnd     = "the end of a log is damaged, and nothing behind that is intact: it is cut, and may have been acknowledged"
	SaidOffsetWrong    = "a batch has another base offset than its place in the log says: it is not served, what lies around it is"
	SaidShortened      = "a segment is shorter than what was durable of it: acknowledged records are missing"
	SaidSealShorter    = "a segment has become shorter since it was left: the records at its end are missing, and are not served"
	SaidSealLonger     = "a segment has become longer since it was left: what follows its end then is not served"
	SaidSealDamaged    = "the note of what a segment holds is damaged: changes of its length are not found"
	SaidGap            = "segments are missing between two others: their records are not served"
	SaidLateStart      = "the first segments of a log are missing, unless their records were deleted while the disk was full: it begins behind its log start offset"
	SaidDuplicate      = "a segment begins before the one before it ends: it is left out, and not served"
	SaidIndexes        = "the indexes of a segment are missing or wrong: they are built anew"
	SaidCheckpoint     = "checkpoint is not used: the segment is read from its beginning"
	SaidEpochs         = "leader epochs are read from the records, since their checkpoint is damaged"
	SaidSnapshot       = "producer snapshot is not used: what it held is read from the records"
	SaidLogStart       = "the log start offset is damaged: deleted records of the first segment may be served again, until records are deleted anew"
	SaidCutDamaged     = "the note of a truncation that a crash has cut short is damaged: the truncation is not done"
	SaidVoidDamaged    = "the note of what the journal held of a log that was truncated is damaged: records that were cut may show again"
	SaidForeign        = "what is this? it is none of millrace's files, and stays as it is"
	SaidJournalTorn    = "the last round of the journal is incomplete, as a crash leaves it: it was not acknowledged"
	SaidJournalDamaged = "a round of the journal is damaged: what it holds may have been acknowledged, and be missing in the segments"
	SaidJournalHole    = "journal entry left out: what comes before it is not in the segment, which was removed"
	SaidSetAside       = "a partition's folder is set aside, not removed: "
	SaidNoTopic        = "it belongs to no topic that the catalogue knows"
)

// TornBytes is more than a crash can leave incomplete at the end of a log: where more follows what is no batch, that is damage.
const TornBytes = tornBytes
